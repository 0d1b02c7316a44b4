"""The map `lease`: the time stamp without which nothing is redirected."""

from __future__ import annotations

import time

from bpf.maps.kernel_map import KernelMap
from bpf.maps.packing import ONLY_KEY, unpack_number


def lease_age_seconds(lease: KernelMap) -> float:
    """Seconds since the lease in this map was renewed. If it never was, since CLOCK_MONOTONIC began, at boot."""
    return (time.monotonic_ns() - unpack_number(lease.lookup(ONLY_KEY))) / 1e9
