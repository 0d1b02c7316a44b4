"""The rows of the kernel maps, as Python values, and their packing.

Mirrors bpf/programs/types.h, field by field; tests/kernel/test_rows.py reads rows back by the compiler's names.
Byte order changes here alone: addresses and ports are in network order in the maps, IPv4 stored as mapped IPv6 (RFC
4291, 2.5.5.2).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address

from config.domain.addresses import Address, Endpoint, Frontend, Protocol

_MAPPED = bytes(10) + b"\xff\xff"


class PassReason(IntEnum):
    """Why a call that matched a frontend was left alone; the index into a counters row."""

    LEASE = 0
    FROM_HOST = 1
    FROM_BACKEND = 2
    QOS = 3
    BOUND = 4
    """The socket is bound to a device."""
    NO_MEMORY = 5
    """The way back could not be noted."""

    @property
    def label(self) -> str:
        return self.name.lower()


class FrontendFlag(IntFlag):
    NO_HOST = 1
    """Processes of the agent's network namespace pass (P14)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontendRow:
    """One row of `frontends`. `generation` is unique for each write of any row."""

    generation: int
    frontend: Frontend
    flags: FrontendFlag = FrontendFlag(0)
    policy_id: int
    first: int
    """Index in `backends` of the first backend; they are `count` in a row, sorted by endpoint."""
    count: int
    slots: int
    """Generation that these rows of `backends` carry: the row's own, or that of an earlier one in the same place."""
    limit: int = 0
    """Redirects a second of the whole policy; 0 is none."""
    affinity_seconds: int = 0
    skip_from: int = 1
    skip_to: int = 0
    """Cgroup levels at which the policy's Pods live; none when skip_from > skip_to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """A policy's counters, summed over the CPUs."""

    redirects: int = 0
    passes: dict[PassReason, int] = field(default_factory=lambda: dict.fromkeys(PassReason, 0))
    affinity_hits: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AffinityRow:
    client_netns: int
    """Network namespace cookie."""
    frontend: Frontend
    backend: Endpoint
    generation: int
    """Of the frontend row by which the backend was last known to be in use."""
    last_used_ns: int
    """CLOCK_MONOTONIC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    second: int
    """CLOCK_MONOTONIC in whole seconds, modulo 2^32."""
    calls: int
    """Calls in that second, those over the limit included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRow:
    name: str
    limit: int
    uid: int = 0
    """`uid_digest` of the object's uid."""
    in_force: bool = True
    """False: it has no other rows than its counters."""

    def is_same_policy(self, other: PolicyRow | None) -> bool:
        """Whether both are rows of one object: of another one of the same name the uid differs."""
        return other is not None and (self.name, self.uid) == (other.name, other.uid)


def pack_address(address: Address) -> bytes:
    return _MAPPED + address.packed if address.version == 4 else address.packed


def unpack_address(raw: bytes) -> Address:
    return IPv4Address(raw[12:]) if raw[:12] == _MAPPED else IPv6Address(raw)


_FRONTEND_KEY = struct.Struct("!16sHB5x")
_KEY_WORDS = struct.Struct("=QQQ")
FILTER_FACTOR = 0x9E3779B97F4A7C15
"""As in bpf/programs/consts.h."""
_GENERATION = struct.Struct("=Q")
_FRONTEND_BODY = struct.Struct("=QIIIIIBBBx")  # slots policy_id first count limit affinity flags skip_from skip_to
_BACKEND = struct.Struct("=Q16s2s6x")
_MEMBER = struct.Struct("=24s16s2s6x")
_AFFINITY_KEY = struct.Struct("=24sQ")
_AFFINITY = struct.Struct("=Q16s2s6xQQ")  # generation address port last_used generation
_COUNTERS = struct.Struct(f"={2 + len(PassReason)}Q")
_WINDOW = struct.Struct("=II")
_POLICY = struct.Struct("=256sQII")
_CONFIG = struct.Struct("=QQ")
_CGROUP_KEY = struct.Struct("=QQ")

POLICY_ID = struct.Struct("=Q")
INDEX = struct.Struct("=I")
PRESENT = INDEX.pack(1)
"""The value of a row whose key says it all."""


def pack_frontend(frontend: Frontend) -> bytes:
    return _FRONTEND_KEY.pack(pack_address(frontend.address), frontend.port, frontend.protocol.number)


def filter_bits(frontend: Frontend) -> tuple[int, int]:
    """The frontend's bits in the one row of `filter`: of its port, and of the 16 bits mixed from its key."""
    high, low, port_protocol = _KEY_WORDS.unpack(pack_frontend(frontend))
    mixed = (high ^ low ^ port_protocol) * FILTER_FACTOR % 2**64
    return frontend.port, 65536 + (mixed >> 48)


def backend_bits(backend: Endpoint, protocol: Protocol) -> tuple[int, int]:
    """The backend's bits there, by which programs notice that a socket turns to the backend's own address."""
    return filter_bits(Frontend(backend.address, backend.port, protocol))


def unpack_frontend(raw: bytes) -> Frontend:
    address, port, protocol = _FRONTEND_KEY.unpack(raw)
    return Frontend(unpack_address(address), port, Protocol.of_number(protocol))


def pack_frontend_row(row: FrontendRow) -> bytes:
    generation = _GENERATION.pack(row.generation)
    body = _FRONTEND_BODY.pack(
        row.slots,
        row.policy_id,
        row.first,
        row.count,
        row.limit,
        row.affinity_seconds,
        row.flags,
        row.skip_from,
        row.skip_to,
    )
    return generation + pack_frontend(row.frontend) + body + generation


def unpack_frontend_row(raw: bytes) -> FrontendRow:
    slots, policy_id, first, count, limit, affinity, flags, skip_from, skip_to = _FRONTEND_BODY.unpack_from(raw, 32)
    return FrontendRow(
        generation=_GENERATION.unpack_from(raw)[0],
        frontend=unpack_frontend(raw[8:32]),
        flags=FrontendFlag(flags),
        policy_id=policy_id,
        first=first,
        count=count,
        slots=slots,
        limit=limit,
        affinity_seconds=affinity,
        skip_from=skip_from,
        skip_to=skip_to,
    )


def pack_backend(generation: int, backend: Endpoint) -> bytes:
    return _BACKEND.pack(generation, pack_address(backend.address), backend.port.to_bytes(2, "big"))


def unpack_backend(raw: bytes) -> tuple[int, Endpoint]:
    """Generation and endpoint."""
    generation, address, port = _BACKEND.unpack(raw)
    return generation, Endpoint(unpack_address(address), int.from_bytes(port, "big"))


def pack_member(frontend: Frontend, backend: Endpoint) -> bytes:
    return _MEMBER.pack(pack_frontend(frontend), pack_address(backend.address), backend.port.to_bytes(2, "big"))


def unpack_member(raw: bytes) -> tuple[Frontend, Endpoint]:
    frontend, address, port = _MEMBER.unpack(raw)
    return unpack_frontend(frontend), Endpoint(unpack_address(address), int.from_bytes(port, "big"))


def unpack_affinity(key: bytes, value: bytes) -> AffinityRow:
    frontend, cookie = _AFFINITY_KEY.unpack(key)
    generation, address, port, last_used, _ = _AFFINITY.unpack(value)
    return AffinityRow(
        client_netns=cookie,
        frontend=unpack_frontend(frontend),
        backend=Endpoint(unpack_address(address), int.from_bytes(port, "big")),
        generation=generation,
        last_used_ns=last_used,
    )


def pack_affinity(row: AffinityRow) -> tuple[bytes, bytes]:
    key = _AFFINITY_KEY.pack(pack_frontend(row.frontend), row.client_netns)
    address, port = pack_address(row.backend.address), row.backend.port.to_bytes(2, "big")
    value = _AFFINITY.pack(row.generation, address, port, row.last_used_ns, row.generation)
    return key, value


def unpack_counters(per_cpu: bytes) -> Counters:
    sums = [sum(column) for column in zip(*_COUNTERS.iter_unpack(per_cpu), strict=True)]
    return Counters(
        redirects=sums[0],
        affinity_hits=sums[1],
        passes={reason: sums[2 + reason] for reason in PassReason},
    )


def unpack_window(raw: bytes) -> Window:
    calls, second = _WINDOW.unpack(raw)
    return Window(second=second, calls=calls)


def pack_policy(row: PolicyRow) -> bytes:
    return _POLICY.pack(row.name.encode(), row.uid, row.limit, row.in_force)


def unpack_policy(raw: bytes) -> PolicyRow:
    name, uid, limit, in_force = _POLICY.unpack(raw)
    return PolicyRow(name=name.rstrip(b"\0").decode(), limit=limit, uid=uid, in_force=bool(in_force))


def uid_digest(uid: str) -> int:
    """A uid may be of any length; 0 for an object without one."""
    return int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8], "little") if uid else 0


def pack_config(*, host_netns: int, lease_ns: int) -> bytes:
    """`host_netns` is the agent's network namespace cookie; `lease_ns` 0 turns the lease off."""
    return _CONFIG.pack(host_netns, lease_ns)


def pack_backend_cgroup(cgroup_id: int, policy_id: int) -> bytes:
    return _CGROUP_KEY.pack(policy_id, cgroup_id)


def unpack_backend_cgroup(raw: bytes) -> tuple[int, int]:
    """Cgroup id and policy id."""
    policy_id, cgroup_id = _CGROUP_KEY.unpack(raw)
    return cgroup_id, policy_id
