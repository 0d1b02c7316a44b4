"""The few calls of libbpf that the agent needs, through ctypes: programs, links, pins and probes.

The low-level calls of libbpf 1.x return -errno; here they raise OSError. Descriptors are close-on-exec. Maps are in
`bpf.maps.kernel_map`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from ctypes import byref, c_char_p, c_int, c_uint32, c_void_p
from pathlib import Path
from typing import NamedTuple

BPF_F_BEFORE = 1 << 3
"""Attach before all programs that are on the cgroup. Since kernel 6.17, and in older ones that have backported it."""
BPF_F_QUERY_EFFECTIVE = 1
PROG_TYPE_SCHED_CLS = 3
PROG_TYPE_SOCK_ADDR = 18
_MAP_TYPE_PROG_ARRAY = 3
_LOG_STATS = 4
"""BPF_LOG_STATS: the verifier logs its reasons and statistics, and not every instruction that it follows."""
_LOG_SIZE = 1 << 20
_NO_REASON = ("verification time ", "stack depth ", "processed ", "cur state: ", "old state: ")
"""How lines of the verifier's log begin that come after its reason: statistics, and states of registers."""
_MAX_PROGRAMS = 64 * 16
"""The kernel takes 64 programs of one type per cgroup (BPF_CGROUP_MAX_PROGS); those of ancestor cgroups run as well."""

lib = ctypes.CDLL("libbpf.so.1", use_errno=True)


class _Opts(ctypes.Structure):
    _fields_ = (("sz", ctypes.c_size_t), ("flags", c_uint32), ("pad", ctypes.c_uint8 * 44))


class _TestRunOpts(ctypes.Structure):
    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("data_in", c_char_p),
        ("data_out", c_char_p),
        ("data_size_in", c_uint32),
        ("data_size_out", c_uint32),
        ("ctx_in", c_void_p),
        ("ctx_out", c_void_p),
        ("ctx_sizes", c_uint32 * 2),
        ("retval", c_uint32),
        ("unused", c_uint32 * 5),  # repeat ... batch_size
    )


class _LoadOpts(ctypes.Structure):
    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("attempts", c_int),
        ("expected_attach_type", c_int),
        ("unused", c_uint32 * 7),  # prog_btf_fd ... attach_btf_obj_fd
        ("fd_array", c_void_p),
        ("func_info", c_void_p),
        ("func_info_sizes", c_uint32 * 2),
        ("line_info", c_void_p),
        ("line_info_sizes", c_uint32 * 2),
        ("log_level", c_uint32),
        ("log_size", c_uint32),
        ("log_buf", c_char_p),
    )


class ProgramRefused(Exception):
    """The kernel has refused to load a program. The text is its reason, in one line."""


def check(result: int, what: str) -> int:
    """The result of a call to libbpf. Raises OSError if it is negative; `what` names what was tried."""
    if result < 0:
        number = -result if result != -1 else ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def load_program(name: str, instructions: bytes, program_type: int, attach_type: int) -> int:
    """Descriptor of a new program. Raises ProgramRefused.

    We don't load through BCC: when the verifier refuses a program, BCC prints a dump of every register, and it reports
    any limit of the verifier as a program that is too large.
    """
    opts = _LoadOpts(sz=ctypes.sizeof(_LoadOpts), expected_attach_type=attach_type)
    count = ctypes.c_size_t(len(instructions) // 8)
    arguments = (program_type, name.encode(), b"GPL", c_char_p(instructions), count, byref(opts))
    result = lib.bpf_prog_load(*arguments)
    if result >= 0:
        return int(result)
    # Load it again with a log, to learn the reason. The first attempt has none, since a log that does not fit into its
    # buffer makes the load fail.
    log = ctypes.create_string_buffer(_LOG_SIZE)
    opts.log_level, opts.log_size, opts.log_buf = _LOG_STATS, _LOG_SIZE, ctypes.cast(log, c_char_p)
    lib.bpf_prog_load(*arguments)
    raise ProgramRefused(verifier_reason(log.value.decode(errors="replace"), -result))


def verifier_reason(log: str, error_number: int) -> str:
    """The last reason in a verifier's log, followed by the error that the kernel returned."""
    lines = [line.strip() for line in log.splitlines()]
    reasons = [line.rstrip(".") for line in lines if line and not line.startswith(_NO_REASON)]
    error = os.strerror(error_number)
    return f"{reasons[-1]} ({error})" if reasons else error


def program_array() -> int:
    """Descriptor of a new map for one program, by which a program can continue with that one (bpf_tail_call)."""
    return check(lib.bpf_map_create(_MAP_TYPE_PROG_ARRAY, b"own_program", 4, 4, 1, None), "create a program array")


def open_pin(path: Path) -> int:
    """Descriptor of the pinned map, program or link."""
    return check(lib.bpf_obj_get(os.fsencode(path)), f"open {path}")


@contextlib.contextmanager
def opened_pin(path: Path) -> Iterator[int]:
    """Opens the pin for the duration of a block. The block must not close the descriptor."""
    descriptor = open_pin(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def pin(descriptor: int, path: Path) -> None:
    check(lib.bpf_obj_pin(descriptor, os.fsencode(path)), f"pin {path}")


def info(descriptor: int, size: int) -> bytes:
    """The first `size` bytes of the object's info (struct bpf_map_info, bpf_prog_info or bpf_link_info)."""
    buffer = ctypes.create_string_buffer(size)
    length = c_uint32(size)
    check(lib.bpf_obj_get_info_by_fd(descriptor, buffer, byref(length)), "object info")
    return buffer.raw


def program_id(program: int) -> int:
    """The kernel's number for a program, which unlike a descriptor is the same for all processes."""
    return int(struct.unpack_from("=I", info(program, 8), 4)[0])


class LinkInfo(NamedTuple):
    link_id: int
    program_id: int
    cgroup_id: int
    """0 when the cgroup is gone, or somebody detached the link."""


def link_info(link: int) -> LinkInfo:
    """The state of a cgroup link."""
    return LinkInfo(*struct.unpack("=4xIIxxxxQ", info(link, 24)))


def test_run(program: int, packet: bytes) -> tuple[int, bytes]:
    """Runs a packet program in the network namespace of this thread. Returns its result, and the packet afterwards."""
    after = ctypes.create_string_buffer(len(packet))
    opts = _TestRunOpts(
        sz=ctypes.sizeof(_TestRunOpts),
        data_in=packet,
        data_out=ctypes.cast(after, c_char_p),
        data_size_in=len(packet),
        data_size_out=len(packet),
    )
    check(lib.bpf_prog_test_run_opts(program, byref(opts)), "run program")
    return int(opts.retval), after.raw


def link_create(program: int, cgroup: int, attach_type: int, flags: int) -> int:
    """Descriptor of a new link, which attaches the program to the cgroup until it is neither open nor pinned."""
    opts = _Opts(sz=ctypes.sizeof(_Opts), flags=flags)
    return check(lib.bpf_link_create(program, cgroup, attach_type, byref(opts)), "create link")


def link_update(link: int, program: int) -> None:
    """Replaces the link's program in place: each call runs either the old or the new one."""
    check(lib.bpf_link_update(link, program, None), "update link")


def link_detach(link: int) -> None:
    """Detaches the program at once, even if another process has the link open."""
    check(lib.bpf_link_detach(link), "detach link")


def effective_programs(cgroup: int, attach_type: int) -> list[int]:
    """Ids of the programs that run for a process in the cgroup, in the order in which they run."""
    ids = (c_uint32 * _MAX_PROGRAMS)()
    count = c_uint32(len(ids))
    flags = c_uint32()
    check(
        lib.bpf_prog_query(cgroup, attach_type, BPF_F_QUERY_EFFECTIVE, byref(flags), ids, byref(count)),
        "query programs",
    )
    return list(ids[: count.value])


def probe_map_type(map_type: int) -> bool:
    return int(lib.libbpf_probe_bpf_map_type(map_type, None)) == 1


def probe_program_type(program_type: int) -> bool:
    return int(lib.libbpf_probe_bpf_prog_type(program_type, None)) == 1


def probe_helper(program_type: int, helper: int) -> bool:
    return int(lib.libbpf_probe_bpf_helper(program_type, helper, None)) == 1
