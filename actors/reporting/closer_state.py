"""What the agent reports about the closer: whether it works, and what follows if it does not. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from bpf.maps.closer_faults import describe_fault
from bpf.maps.rows import CloserFault, CloserRow

SILENCE_SECONDS = 10.0
"""The closer writes its row each second. Closing very many sockets may take it longer."""
_CONSEQUENCE = "sockets that programs keep open stay connected to a Pod that is out of use"


class CloserState(StrEnum):
    """In /status, and the `state` label of metrics."""

    RUNNING = "running"
    FAILING = "failing"
    ABSENT = "absent"
    DISABLED = "disabled"


class CloserReport(NamedTuple):
    state: CloserState
    message: str
    """What keeps it from working, and what follows; "" while it is running."""


def closer_report(row: CloserRow, *, enabled: bool, now_ns: int) -> CloserReport:
    """`enabled` is redirect.close_stale_sockets; `now_ns` is CLOCK_MONOTONIC."""
    if not enabled:
        return CloserReport(CloserState.DISABLED, f"redirect.close_stale_sockets is false: {_CONSEQUENCE}")
    silent = (now_ns - row.alive_ns) / 1e9
    if not row.alive_ns or silent > SILENCE_SECONDS:
        heard = f"was last alive {silent:.0f} s ago" if row.alive_ns else "does not run on this node"
        return CloserReport(CloserState.ABSENT, f"the closer (run.py closer) {heard}: {_CONSEQUENCE}")
    if row.fault == CloserFault.NONE:
        return CloserReport(CloserState.RUNNING, "")
    return CloserReport(CloserState.FAILING, f"{describe_fault(row.fault)}: {_CONSEQUENCE}")
