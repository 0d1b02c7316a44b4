"""Which policies reached their limit, according to the kernel map `windows` (P11)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from bpf.maps.pinned_maps import PinnedMaps
from bpf.maps.rows import PolicyRow, Window


class QosReading(NamedTuple):
    """Both are by policy id."""

    windows: Mapping[int, Window]
    policies: Mapping[int, PolicyRow]
    """Those in force, with their limits; empty when there are no windows."""


def read_windows(maps: PinnedMaps) -> QosReading:
    windows = maps.windows()
    return QosReading(windows, maps.policy_rows() if windows else {})


def limited_in(second: int, reading: QosReading) -> frozenset[int]:
    """Returns the ids of the policies that had more calls than their limit in that second of CLOCK_MONOTONIC. Pure."""
    return frozenset(
        policy_id
        for policy_id, window in reading.windows.items()
        if policy_id in reading.policies and window.calls_in(second) > reading.policies[policy_id].limit > 0
    )
