"""Packing and unpacking the rows of the kernel maps.

Mirrors bpf/programs/types.h, field by field; tests/kernel/test_rows.py compares the two, by the names in the maps' BTF.
This is the only module that changes byte order: in the maps, addresses and ports are in network order, and IPv4 is
stored as mapped IPv6 (RFC 4291, 2.5.5.2).
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from bpf.maps.rows import (
    DECIDING_HOOKS,
    AffinityRow,
    CloserFault,
    CloserRow,
    ConfigRow,
    Counters,
    Decision,
    FrontendFlag,
    FrontendRow,
    PassReason,
    PolicyRow,
    Window,
)
from config.domain.addresses import Address, Endpoint, Frontend, Protocol

_MAPPED = bytes(10) + b"\xff\xff"


def pack_address(address: Address) -> bytes:
    return _MAPPED + address.packed if address.version == 4 else address.packed


def unpack_address(raw: bytes) -> Address:
    return IPv4Address(raw[12:]) if raw[:12] == _MAPPED else IPv6Address(raw)


_FRONTEND_KEY = struct.Struct("!16sHB5x")
HASH_FACTOR = 0x9E3779B97F4A7C15
"""HASH_FACTOR of bpf/programs/consts.h."""
_GENERATION = struct.Struct("=Q")
_FRONTEND_BODY = struct.Struct("=QIIIIIBBBBQ")  # from backends_generation to cgroup_bits
_BACKEND = struct.Struct("=Q16s2s6x")  # without the seal
_MEMBER = struct.Struct("=24s16s2s6x")
_AFFINITY_KEY = struct.Struct("=24sQ")
_AFFINITY = struct.Struct("=32sQQ8s")  # a row of `backends`, last_used, generation, the seal of that row
_COUNTERS = struct.Struct(f"={2 + len(PassReason)}Q")
_WINDOW = struct.Struct("=II")
_POLICY = struct.Struct("=256sQII")
_CONFIG = struct.Struct("=QQ")
_CGROUP_KEY = struct.Struct("=QQ")
_REDIRECT_QUERY = struct.Struct("=24s16s2s6x16s2s6x")  # peer, local address and port, frontend address and port
_CLOSER = struct.Struct("=QQ")
_DECISION = struct.Struct("=QQ24s16s2s6xQQIIIHH")  # number ... thread, process, policy, reason, hook
DECISION_SIZE = _DECISION.size

POLICY_ID = struct.Struct("=Q")
INDEX = struct.Struct("=I")
ONLY_KEY = INDEX.pack(0)
"""The key in a map of one row."""
PRESENT = INDEX.pack(1)
"""The value in maps that are sets of keys."""


def pack_number(number: int) -> bytes:
    """A row of one word: an id, a count, or a time in nanoseconds."""
    return number.to_bytes(8, sys.byteorder)


def unpack_number(raw: bytes | None) -> int:
    """0 when there is no row."""
    return int.from_bytes(raw or b"", sys.byteorder)


def pack_frontend(frontend: Frontend) -> bytes:
    return _FRONTEND_KEY.pack(pack_address(frontend.address), frontend.port, frontend.protocol.number)


def unpack_frontend(raw: bytes) -> Frontend:
    address, port, protocol = _FRONTEND_KEY.unpack(raw)
    return Frontend(unpack_address(address), port, Protocol.of_number(protocol))


def seal(words: bytes) -> bytes:
    """The seal of a row, which follows these words in it. Mirrors bpf/programs/lib_order.c."""
    mixed = 0
    for (word,) in _GENERATION.iter_unpack(words):
        mixed = (mixed * HASH_FACTOR + word) % 2**64
    return _GENERATION.pack(mixed)


def pack_frontend_row(row: FrontendRow) -> bytes:
    generation = _GENERATION.pack(row.generation)
    body = _FRONTEND_BODY.pack(
        row.backends_generation,
        row.policy_id,
        row.first,
        row.count,
        row.limit,
        row.affinity_seconds,
        row.flags,
        row.skip_from,
        row.skip_to,
        row.percentage,
        row.cgroup_bits,
    )
    words = generation + pack_frontend(row.frontend) + body + generation
    return words + seal(words)


def unpack_frontend_row(raw: bytes) -> FrontendRow:
    body = _FRONTEND_BODY.unpack_from(raw, 32)
    backends_generation, policy_id, first, count, limit, affinity, flags, skip_from, skip_to, percentage, bits = body
    return FrontendRow(
        generation=_GENERATION.unpack_from(raw)[0],
        frontend=unpack_frontend(raw[8:32]),
        flags=FrontendFlag(flags),
        policy_id=policy_id,
        first=first,
        count=count,
        backends_generation=backends_generation,
        limit=limit,
        affinity_seconds=affinity,
        skip_from=skip_from,
        skip_to=skip_to,
        percentage=percentage,
        cgroup_bits=bits,
    )


def pack_backend(generation: int, backend: Endpoint) -> bytes:
    words = _BACKEND.pack(generation, pack_address(backend.address), backend.port.to_bytes(2, "big"))
    return words + seal(words)


def unpack_backend(raw: bytes) -> tuple[int, Endpoint]:
    """Generation and endpoint."""
    generation, address, port = _BACKEND.unpack_from(raw)
    return generation, Endpoint(unpack_address(address), int.from_bytes(port, "big"))


def pack_backends(generation: int, first: int, backends: Iterable[Endpoint]) -> list[tuple[bytes, bytes]]:
    """Keys and values of neighbouring rows, from index `first` on."""
    return [(INDEX.pack(first + i), pack_backend(generation, backend)) for i, backend in enumerate(backends)]


def pack_member(frontend: Frontend, backend: Endpoint) -> bytes:
    return _MEMBER.pack(pack_frontend(frontend), pack_address(backend.address), backend.port.to_bytes(2, "big"))


def unpack_member(raw: bytes) -> tuple[Frontend, Endpoint]:
    frontend, address, port = _MEMBER.unpack(raw)
    return unpack_frontend(frontend), Endpoint(unpack_address(address), int.from_bytes(port, "big"))


def unpack_affinity(key: bytes, value: bytes) -> AffinityRow:
    frontend, cookie = _AFFINITY_KEY.unpack(key)
    words, last_used, _, _ = _AFFINITY.unpack(value)
    generation, backend = unpack_backend(words)
    return AffinityRow(
        client_netns=cookie,
        frontend=unpack_frontend(frontend),
        backend=backend,
        generation=generation,
        last_used_ns=last_used,
    )


def pack_affinity_key(frontend: Frontend, client_netns: int) -> bytes:
    return _AFFINITY_KEY.pack(pack_frontend(frontend), client_netns)


def unpack_counters(per_cpu: bytes) -> Counters:
    """Adds up the rows of all CPUs."""
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


def pack_config(*, host_netns: int, lease_ns: int) -> bytes:
    """`host_netns` is the cookie of the agent's network namespace; a `lease_ns` of 0 turns the lease off."""
    return _CONFIG.pack(host_netns, lease_ns)


def unpack_config(raw: bytes) -> ConfigRow:
    host_netns, lease_ns = _CONFIG.unpack(raw)
    return ConfigRow(host_netns=host_netns, lease_ns=lease_ns)


def pack_backend_cgroup(cgroup_id: int, policy_id: int) -> bytes:
    return _CGROUP_KEY.pack(policy_id, cgroup_id)


def unpack_backend_cgroup(raw: bytes) -> tuple[int, int]:
    """Cgroup id and policy id."""
    policy_id, cgroup_id = _CGROUP_KEY.unpack(raw)
    return cgroup_id, policy_id


def pack_redirect_query(protocol: Protocol, *, peer: Endpoint, local: Endpoint) -> bytes:
    """The question whether the socket with these addresses was redirected (bpf/programs/closer.c)."""
    peer_key = pack_frontend(Frontend(peer.address, peer.port, protocol))
    return _REDIRECT_QUERY.pack(
        peer_key, pack_address(local.address), local.port.to_bytes(2, "big"), bytes(16), bytes(2)
    )


def unpack_redirect_answer(raw: bytes) -> Frontend:
    """The frontend in an answered query."""
    peer, _, _, address, port = _REDIRECT_QUERY.unpack(raw)
    return Frontend(unpack_address(address), int.from_bytes(port, "big"), unpack_frontend(peer).protocol)


def pack_closer(row: CloserRow) -> bytes:
    return _CLOSER.pack(row.alive_ns, row.fault)


def unpack_closer(raw: bytes) -> CloserRow:
    alive_ns, fault = _CLOSER.unpack(raw)
    return CloserRow(alive_ns=alive_ns, fault=CloserFault(fault))


def is_recorded(raw: bytes) -> bool:
    """False for a row of `decisions` that was never written, or that a program is writing at this moment."""
    return any(raw[:8])


def unpack_decision(raw: bytes) -> Decision:
    _, time_ns, frontend, address, port, netns, cgroup_id, _, pid, policy_id, reason, hook = _DECISION.unpack(raw)
    return Decision(
        time_ns=time_ns,
        hook=DECIDING_HOOKS[hook],
        frontend=unpack_frontend(frontend),
        target=Endpoint(unpack_address(address), int.from_bytes(port, "big")),
        reason=PassReason(reason - 1) if reason else None,
        policy_id=policy_id,
        client_netns=netns,
        cgroup_id=cgroup_id,
        pid=pid,
    )
