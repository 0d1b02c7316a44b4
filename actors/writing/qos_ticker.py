"""QosTicker: each second, starts a round of lease probes and reports the policies that reached their limit.

In: TickElapsed (own clock). Out: LeaseProbe (the three watchers), QosWindowElapsed (StatusReporter).

The kernel enforces the limits by itself and does not depend on this actor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import ClassVar

from actors.framework.actor import AgentActor, clock
from actors.framework.messages import Message, TickElapsed
from actors.messages.reports import QosWindowElapsed
from actors.messages.subscriptions import WATCHERS
from actors.messages.upkeep import LeaseProbe
from actors.writing.qos_windows import QosReading, limited_in

TICK_SECONDS = 1.0


class QosTicker(AgentActor):
    HANDLERS: ClassVar[Mapping[type[Message], str]] = {TickElapsed: "_on_tick_elapsed"}

    def __init__(self, *, read: Callable[[], QosReading]) -> None:
        super().__init__()
        self._read = read

    def started(self) -> None:
        self.own(clock(self, TICK_SECONDS))

    def _on_tick_elapsed(self, _message: TickElapsed) -> None:
        now_ns = time.monotonic_ns()
        for watcher in WATCHERS:
            self.send(watcher, LeaseProbe(sent_ns=now_ns))
        # The present second counts as well: a policy that is at its limit usually exceeds it before the second is over.
        reading, second = self._read(), now_ns // 1_000_000_000
        limited = limited_in(second - 1, reading) | limited_in(second, reading)
        self.send("StatusReporter", QosWindowElapsed(limited=tuple(sorted(limited))))
