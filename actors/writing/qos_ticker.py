"""QosTicker: owns the second's tick: starts a lease round and reads the windows of the second that ended.

In: TickElapsed (own clock). Out: LeaseProbe (the three watchers), QosWindowElapsed (StatusReporter).
The kernel keeps the windows by itself; nothing here is needed for the limit to hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import ClassVar

from actors.framework.actor import AgentActor, clock
from actors.framework.messages import Message, TickElapsed
from actors.messages.reports import QosWindowElapsed
from actors.messages.upkeep import LeaseProbe
from bpf.rows import PolicyRow, Window

TICK_SECONDS = 1.0
Windows = Mapping[int, Window]
Limits = Mapping[int, PolicyRow]


def limited_in(second: int, windows: Windows, limits: Limits) -> tuple[int, ...]:
    """Service ids that had more calls than their limit in that second (CLOCK_MONOTONIC)."""
    return tuple(
        sorted(
            policy_id
            for policy_id, window in windows.items()
            if policy_id in limits
            and window.second == second & 0xFFFFFFFF
            and window.calls > limits[policy_id].limit > 0
        )
    )


class QosTicker(AgentActor):
    """`read` gives the windows and the limits that are installed, by policy id."""

    HANDLERS: ClassVar[Mapping[type[Message], str]] = {TickElapsed: "_on_tick_elapsed"}

    def __init__(self, *, read: Callable[[], tuple[Windows, Limits]]) -> None:
        super().__init__()
        self._read = read
        self._round = 0

    def started(self) -> None:
        self.own(clock(self, TICK_SECONDS))

    def _on_tick_elapsed(self, _message: TickElapsed) -> None:
        now_ns = time.monotonic_ns()
        self._round += 1
        for watcher in ("PolicyWatcher", "ServiceWatcher", "EndpointWatcher"):
            self.send(watcher, LeaseProbe(round=self._round, sent_ns=now_ns))
        # A window that goes on is counted up to now: a policy at its limit has gone over it before its second ends.
        windows, limits = self._read()
        second = now_ns // 1_000_000_000
        limited = set(limited_in(second - 1, windows, limits)) | set(limited_in(second, windows, limits))
        self.send("StatusReporter", QosWindowElapsed(limited=tuple(sorted(limited))))
