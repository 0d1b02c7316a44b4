"""Instructions of BPF programs that are too small for a compiler."""

from __future__ import annotations

import struct


def instruction(code: int, *, to: int = 0, of: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """One struct bpf_insn of the kernel's uapi/linux/bpf.h. `to` and `of` are its registers dst_reg and src_reg."""
    return struct.pack("=BBhi", code, to | of << 4, offset, value)
