"""AffinityAger: decides when MapWriter sweeps the affinity rows.

In: TickElapsed (own clock), BackendsRemoved (MapWriter). Out: SweepAffinity (MapWriter).

The programs check every row before they use it. A sweep only frees the rows that nobody uses.
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
"""Number of ticks between two sweeps while no backend is removed."""


class AffinityAger(AgentActor):
    HANDLERS: ClassVar[Mapping[type[Message], str]] = {
        TickElapsed: "_on_tick_elapsed",
        BackendsRemoved: "_on_backends_removed",
    }

    def __init__(self) -> None:
        super().__init__()
        self._removed = False
        """Whether a backend was removed since the last sweep."""
        self._ticks = 0
        """Number of ticks since the last sweep."""

    def started(self) -> None:
        self.own(clock(self, TICK_SECONDS))

    def _on_tick_elapsed(self, _message: TickElapsed) -> None:
        self._ticks += 1
        if self._removed or self._ticks >= SWEEP_TICKS:
            self._removed = False
            self._ticks = 0
            self.send("MapWriter", SweepAffinity(now_ns=time.monotonic_ns()))

    def _on_backends_removed(self, _message: BackendsRemoved) -> None:
        """Waits for the next tick, because backends are often removed many at a time."""
        self._removed = True
