"""Rows of the map `affinity` as the programs write them. The agent itself only reads and removes such rows."""

from __future__ import annotations

import struct

from bpf.maps.packing import pack_affinity_key, pack_backend
from bpf.maps.rows import AffinityRow

_TIMES = struct.Struct("=QQ")  # last_used, generation


def pack_affinity(row: AffinityRow) -> tuple[bytes, bytes]:
    """Key and value: a row of `backends` with two more words before its seal."""
    sealed = pack_backend(row.generation, row.backend)
    value = sealed[:32] + _TIMES.pack(row.last_used_ns, row.generation) + sealed[32:]
    return pack_affinity_key(row.frontend, row.client_netns), value
