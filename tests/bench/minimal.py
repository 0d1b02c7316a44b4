"""The least that a redirect can cost: a program that does nothing but what every redirect needs.

A bitmap of ports, one look-up, the socket's storage, and the new address. It has no generations, exemptions, limits,
counters or affinity, and knows one pair for each socket.

    python -m tests.bench.minimal DIRECTORY

loads it with the rights that this process has, and pins programs and maps in a directory on a bpffs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bpf import libbpf
from bpf.build import HOOKS, KERNEL_TREE
from bpf.maps.kernel_map import KernelMap
from bpf.maps.packing import pack_backend, pack_frontend
from config.domain.addresses import Endpoint, Frontend

PROGRAMS = ("connect4", "sendmsg4")
_PORTS, _STATE = 200, 201
"""Descriptors under which maps are opened while the programs are loaded."""
_TEXT = f"""
#include <uapi/linux/bpf.h>
struct key {{ u64 address[2]; u64 port_protocol; }};
struct row {{ u64 generation; u64 address[2]; u64 port; }};
struct state {{ u64 generation; u64 frontend[2]; u64 backend[2]; u64 ports; }};
struct bits {{ u64 words[1024]; }};
BPF_TABLE("array", u32, struct bits, ports, 1);
BPF_TABLE("hash", struct key, struct row, rows, 65536);
BPF_SK_STORAGE(state, struct state);

int minimal(struct bpf_sock_addr *ctx) {{
    const struct bits *bits = (void *)bpf_pseudo_fd(BPF_PSEUDO_MAP_VALUE, {_PORTS});
    u32 port = ctx->user_port, i = bpf_ntohs(port);
    struct state *state;
    struct key key;
    struct row *row;

    if (!(bits->words[i / 64] >> (i % 64) & 1))
        return 1;
    key.address[0] = 0;
    key.address[1] = (u64)ctx->user_ip4 << 32 | 0xffff0000;
    key.port_protocol = port | (u32)(u8)ctx->protocol << 16;
    row = rows.lookup(&key);
    if (!row)
        return 1;
    state = bpf_sk_storage_get((void *)bpf_pseudo_fd(BPF_PSEUDO_MAP_FD, {_STATE}), ctx->sk, 0, 1);
    if (!state)
        return 1;
    if (state->generation != row->generation) {{
        state->frontend[0] = key.address[0];
        state->frontend[1] = key.address[1];
        state->backend[0] = row->address[0];
        state->backend[1] = row->address[1];
        state->ports = (u16)port | row->port << 16;
        state->generation = row->generation;
    }}
    ctx->user_ip4 = state->backend[1] >> 32;
    ctx->user_port = (u16)(state->ports >> 16);
    return 1;
}}
"""


def load(directory: Path) -> None:
    os.environ["BCC_KERNEL_SOURCE"] = str(KERNEL_TREE)
    from bcc import BPF, lib  # noqa: PLC0415

    compiled = BPF(text=_TEXT)
    for name in ("ports", "rows"):
        libbpf.pin(compiled[name].map_fd, directory / name)
    os.dup2(compiled["ports"].map_fd, _PORTS)
    os.dup2(lib.bpf_table_fd(compiled.module, b"state"), _STATE)
    for hook in PROGRAMS:
        instructions = compiled.dump_func(b"minimal")
        program = libbpf.load_program(hook, instructions, libbpf.PROG_TYPE_SOCK_ADDR, HOOKS[hook])
        libbpf.pin(program, directory / hook)


def install(directory: Path, frontend: Frontend, backend: Endpoint) -> None:
    """Writes the rows that redirect this IPv4 frontend."""
    bits = bytearray(8192)
    bits[frontend.port // 8] |= 1 << frontend.port % 8
    for name, key, value in (
        ("ports", bytes(4), bytes(bits)),
        ("rows", pack_frontend(frontend), pack_backend(1, backend)),
    ):
        opened = KernelMap(directory / name)
        opened.update(key, value)
        opened.close()


if __name__ == "__main__":
    load(Path(sys.argv[1]))
