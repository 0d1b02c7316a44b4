"""What a scrape of /metrics reads from the kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from actors.reporting.closer_state import CloserState
from bpf.maps.rows import Counters
from config.domain.addresses import Frontend

if TYPE_CHECKING:
    from bpf.lifecycle.datapath import Datapath  # the controller must not load it

_REPORTED_MAPS = ("frontends", "backends", "backend_cgroups", "windows", "affinity", "counters", "policies")


class DatapathFault(StrEnum):
    """Why calls may not be redirected although the agent works. Also the `fault` label of metrics."""

    NO_PODS_COVERED = "no_pods_covered"
    OTHER_PROGRAM_FIRST = "other_program_first"


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelReading:
    counters: Mapping[int, Counters]
    """By policy id."""
    entries: Mapping[str, int]
    """Map -> number of rows in use."""
    capacity: Mapping[str, int]
    """Map -> number of rows that fit."""
    attached: frozenset[str]
    """Names of the hooks whose program is attached."""
    faults: frozenset[DatapathFault] = frozenset()
    counted: Mapping[int, str] = field(default_factory=dict)
    """Policy id -> name of the policy that the counters belong to."""
    closer: CloserState = CloserState.RUNNING
    stale_closed: Mapping[Frontend, int] = field(default_factory=dict)
    """Frontend -> stale sockets that the closer has closed."""


def read_kernel(datapath: Datapath, closer: CloserState) -> KernelReading:
    """Raises OSError when the maps cannot be read."""
    maps = datapath.maps
    return KernelReading(
        counters=maps.counters(),
        entries={name: maps.rows_in_use(name) for name in _REPORTED_MAPS},
        capacity={name: maps[name].max_entries for name in _REPORTED_MAPS},
        attached=frozenset(datapath.attached_hooks()),
        faults=_faults(datapath),
        counted={policy_id: row.name for policy_id, row in maps.counted_policies().items()},
        closer=closer,
        stale_closed=maps.stale_closed(),
    )


def _faults(datapath: Datapath) -> frozenset[DatapathFault]:
    found = {
        DatapathFault.NO_PODS_COVERED: datapath.coverage_faults(),
        DatapathFault.OTHER_PROGRAM_FIRST: datapath.programs_before_us(),
    }
    return frozenset(fault for fault, causes in found.items() if causes)
