"""Which of the kernel features that we need are missing. We ask the running kernel itself, at start."""

from __future__ import annotations

import os

from bpf import libbpf
from bpf.build import HOOKS
from bpf.instructions import instruction

KERNEL_FLOOR = (5, 15)

MAP_TYPES = {"hash map": 1, "array map": 2, "program array": 3, "per-CPU hash map": 5, "socket storage": 24}
HELPERS = {
    "bpf_get_prandom_u32": 7,
    "bpf_tail_call": 12,
    "bpf_get_current_pid_tgid": 14,
    "bpf_get_current_cgroup_id": 80,
    "bpf_sk_lookup_tcp": 84,
    "bpf_sk_release": 86,
    "bpf_spin_lock": 93,
    "bpf_spin_unlock": 94,
    "bpf_sk_storage_get": 107,
    "bpf_get_netns_cookie": 122,
    "bpf_get_current_ancestor_cgroup_id": 123,
    "bpf_ktime_get_coarse_ns": 160,
}
"""Helper functions that the hooks call -> number (enum bpf_func_id of the kernel's uapi/linux/bpf.h)."""

PACKET_HELPERS = {"bpf_skb_store_bytes": 9, "bpf_skb_load_bytes": 26, "bpf_sk_lookup_udp": 85}
"""Those that the closer's program calls as well."""

ATOMICS = {"addition": 0x00, "addition that returns the former value": 0x01, "comparison and exchange": 0xF1}
"""Atomic operations of the programs -> their code in the instruction. The kernel's JIT compiler for a processor other
than x86 may lack some: the one for arm64 has those that return a value since kernel 5.18."""


def missing_features() -> list[str]:
    """Names of the features that this kernel lacks, or that this process has no right to use; empty when none is
    missing."""
    missing = []
    release = os.uname().release
    version = tuple(int(part) for part in release.split("-")[0].split(".")[:2])
    if version < KERNEL_FLOOR:
        missing.append(f"kernel {KERNEL_FLOOR[0]}.{KERNEL_FLOOR[1]} or newer (this is {release})")
    if not libbpf.probe_program_type(libbpf.PROG_TYPE_SOCK_ADDR):
        missing.append("cgroup socket address programs (CONFIG_CGROUP_BPF; rights: CAP_BPF and CAP_NET_ADMIN)")
        return missing  # without those, no helper can be probed
    missing += [name for name, number in MAP_TYPES.items() if not libbpf.probe_map_type(number)]
    for program_type, helpers in ((libbpf.PROG_TYPE_SOCK_ADDR, HELPERS), (libbpf.PROG_TYPE_SCHED_CLS, PACKET_HELPERS)):
        missing += [
            f"helper {name}" for name, number in helpers.items() if not libbpf.probe_helper(program_type, number)
        ]
    missing += [f"atomic {name} in programs" for name, operation in ATOMICS.items() if not _has_atomic(operation)]
    return missing


def _has_atomic(operation: int) -> bool:
    text = b"".join(
        (
            instruction(0xB7, to=0, value=0),  # r0 = 0
            instruction(0x7B, to=10, of=0, offset=-8),  # *(u64 *)(r10 - 8) = r0
            instruction(0xB7, to=1, value=1),  # r1 = 1
            instruction(0xDB, to=10, of=1, offset=-8, value=operation),  # the operation, with r1, on that word
            instruction(0xB7, to=0, value=1),  # r0 = 1
            instruction(0x95),  # return r0
        )
    )
    try:
        os.close(libbpf.load_program("atomic", text, libbpf.PROG_TYPE_SOCK_ADDR, HOOKS["connect4"]))
    except libbpf.ProgramRefused:
        return False
    return True
