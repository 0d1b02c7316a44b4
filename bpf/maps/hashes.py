"""Which bits stand for a frontend, a backend or a cgroup, and which place a client has, as the C programs compute them.
Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from bpf.maps.packing import HASH_FACTOR, pack_frontend
from config.domain.addresses import Endpoint, Frontend, Protocol

_KEY_WORDS = struct.Struct("=QQQ")


def filter_bits(frontend: Frontend) -> tuple[int, int]:
    """Indices of the frontend's two bits in the row of `filter`: one from its port, one from a 16-bit hash of its whole
    key."""
    high, low, port_protocol = _KEY_WORDS.unpack(pack_frontend(frontend))
    mixed = (high ^ low ^ port_protocol) * HASH_FACTOR % 2**64
    return frontend.port, 65536 + (mixed >> 48)


def backend_bits(backend: Endpoint, protocol: Protocol) -> tuple[int, int]:
    """Indices of the backend's bits, from which the programs see that a socket calls the backend's own address."""
    return filter_bits(Frontend(backend.address, backend.port, protocol))


def cgroup_bits(cgroup_ids: Iterable[int]) -> int:
    """The bits from which the programs see that a caller is in none of these cgroups, for nearly all callers."""
    bits = 0
    for each in cgroup_ids:
        bits |= 1 << (each & 63)
    return bits


def client_place(netns_cookie: int) -> int:
    """The client's place from 0 to 99. A frontend redirects the clients whose place is less than its percentage (P21).

    Mirrors in_share of bpf/programs/lib_exemptions.c.
    """
    return (netns_cookie * HASH_FACTOR % 2**64 >> 32) * 100 >> 32
