"""AffinityAger: owns the moment at which affinity rows are swept; the rows are MapWriter's.

In: TickElapsed (own clock), BackendsRemoved (MapWriter). Out: SweepAffinity (MapWriter).
The programs check every row that they use; sweeping only frees what nobody uses.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import ClassVar

from actors.framework.actor import AgentActor, clock
from actors.framework.messages import Message, TickElapsed
from actors.messages.upkeep import BackendsRemoved, SweepAffinity

TICK_SECONDS = 1.0
SWEEP_TICKS = 10
"""Swept every so many ticks when no backend went away."""


class AffinityAger(AgentActor):
    HANDLERS: ClassVar[Mapping[type[Message], str]] = {
        TickElapsed: "_on_tick_elapsed",
        BackendsRemoved: "_on_backends_removed",
    }

    def __init__(self) -> None:
        super().__init__()
        self._removed = False
        """A backend went away since the last sweep."""
        self._ticks = 0
        """Since the last sweep."""

    def started(self) -> None:
        self.own(clock(self, TICK_SECONDS))

    def _on_tick_elapsed(self, _message: TickElapsed) -> None:
        self._ticks += 1
        if self._removed or self._ticks >= SWEEP_TICKS:
            self._removed = False
            self._ticks = 0
            self.send("MapWriter", SweepAffinity(now_ns=time.monotonic_ns()))

    def _on_backends_removed(self, _message: BackendsRemoved) -> None:
        """Swept with the next tick: backends often go many at a time."""
        self._removed = True
