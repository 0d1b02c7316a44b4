"""Which of the features that we need the running kernel has. We ask the kernel itself, at start."""

from __future__ import annotations

import os
import socket

from bpf import libbpf

KERNEL_FLOOR = (5, 15)
SO_NETNS_COOKIE = 71
"""include/uapi/asm-generic/socket.h, kernel 5.14."""

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
    return missing


def own_netns_cookie() -> int:
    """Cookie of the network namespace of this process."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), "little")
