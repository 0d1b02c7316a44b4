"""A build of the programs: its text, map sizes and compiler flags, and the name that identifies them."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from pathlib import Path
from typing import NamedTuple

_PROGRAMS = Path(__file__).parent / "programs"
KERNEL_TREE = _PROGRAMS / "kernel"
_HEADERS = ("consts.h", "types.h", "sockets.h", "maps.h")
_SOURCES = (
    "lib_context.c",
    "lib_order.c",
    "lib_frontend.c",
    "lib_count.c",
    "lib_exemptions.c",
    "lib_limit.c",
    "lib_socket.c",
    "lib_way_back.c",
    "lib_affinity.c",
    "lib_watch.c",
    "lib_redirect.c",
    "hooks.c",
    "closer.c",
)

HOOKS: dict[str, int] = {
    "recvmsg4": 19,
    "recvmsg6": 20,
    "getpeername4": 29,
    "getpeername6": 30,
    "sendmsg4": 14,
    "sendmsg6": 15,
    "connect4": 10,
    "connect6": 11,
}
"""Hook -> attach type (enum bpf_attach_type of the kernel's uapi/linux/bpf.h), in the order in which they are attached.
The way back comes first, so that no process ever sees a backend's address."""

WAY_BACK = frozenset({"recvmsg4", "recvmsg6", "getpeername4", "getpeername6"})
"""Hooks that translate a backend's address back to the frontend's."""

FIND_REDIRECT = "find_redirect"
"""The program that the closer runs; it is attached nowhere."""

MAP_NAMES = (
    "filter",
    "frontends",
    "backends",
    "members",
    "backend_cgroups",
    "windows",
    "affinity",
    "counters",
    "policies",
    "backend_pods",
    "unusable",
    "usage_revision",
    "stale_closed",
    "closer",
    "watch",
    "decisions",
    "config",
    "lease",
    "agent_cgroup",
)

ONE_ROW_MAPS = {"filter": 200, "config": 201, "lease": 202, "agent_cgroup": 205, "watch": 206}
"""Maps of one row, which the programs read without a look-up -> the descriptor under which the loader opens the map."""

SHARED_MAPS = {"socket_state": 203, "socket_more": 204}
"""Socket storages, which builds share -> the descriptor under which the loader opens the one to use."""

OWN_PROGRAM = 207
"""The descriptor under which the loader opens the map from which a program starts itself again."""

OWN_HOOK = 0x6B6F6F68
"""A placeholder in the compiled programs. The loader replaces it with the number of the hook that it loads a program
for (bpf/programs/lib_watch.c)."""


_STRONG_ORDER = frozenset({"x86_64"})
"""Machines that keep loads in their order, and stores as well (bpf/programs/lib_order.c)."""


class MapSizes(NamedTuple):
    """Rows of the maps, from `datapath` in the configuration."""

    max_frontends: int
    max_backends: int
    max_affinity: int


SIZE_KEYS = {
    "frontends": "datapath.max_frontends",
    "backends": "datapath.max_backends",
    "affinity": "datapath.max_affinity",
    "policies": "datapath.max_frontends",
    "backend_cgroups": "datapath.max_backends",
}
"""Map -> the configuration key that its size comes from (bpf/programs/consts.h), for the maps that messages name."""


def program_text() -> str:
    """One text for BCC, which understands map methods only in its main text. So only types and maps are included."""
    parts = ["#include <uapi/linux/bpf.h>\n#include <linux/compiler.h>\n"]
    parts += [f'#include "{name}"\n' for name in _HEADERS]
    parts += [f'#line 1 "{name}"\n{(_PROGRAMS / name).read_text()}' for name in _SOURCES]
    return "".join(parts)


def compiler_flags(sizes: MapSizes) -> list[str]:
    numbers = sizes._asdict() | {f"{name}_fd": descriptor for name, descriptor in (ONE_ROW_MAPS | SHARED_MAPS).items()}
    numbers |= {"own_program_fd": OWN_PROGRAM, "own_hook": OWN_HOOK}
    flags = [f"-I{_PROGRAMS}", "-Wno-macro-redefined"]
    if platform.machine() not in _STRONG_ORDER:
        flags.append("-DWEAK_ORDER")
    return flags + [f"-D{name.upper()}={value}" for name, value in numbers.items()]


@cache
def _digest() -> str:
    headers = "".join((_PROGRAMS / name).read_text() for name in _HEADERS)
    return hashlib.sha256((program_text() + headers).encode()).hexdigest()[:12]


def build_name(sizes: MapSizes) -> str:
    """Name of this build. Builds of the same name have the same programs and maps."""
    return "-".join([_digest(), *map(str, sizes)])


def sockets_layout() -> str:
    """Digest of sockets.h, comments included. Builds with the same one share the socket storages. With another one, the
    former programs of the way back stay attached (bpf/lifecycle/attaching.py), so change that file only if you must."""
    return hashlib.sha256((_PROGRAMS / "sockets.h").read_bytes()).hexdigest()[:12]


def rows_layout() -> str:
    """Digest of types.h, comments included. Rows are copied only between builds with the same one."""
    return hashlib.sha256((_PROGRAMS / "types.h").read_bytes()).hexdigest()[:12]
