"""Joins the lease probes of the three watchers into one. Pure.

A probe travels the way of facts, so that an actor that is stuck stops it, and with it the lease. The lease may be
renewed as of the oldest of the probes that the watchers passed on last.
"""

from __future__ import annotations

from dataclasses import replace

from actors.messages.facts import SourceName
from actors.messages.upkeep import LeaseProbe


class LeaseRounds:
    def __init__(self) -> None:
        self._newest: dict[SourceName, LeaseProbe] = {}
        """The newest probe that each watcher passed on."""
        self._joined_ns = 0
        """When the probe that was joined last was sent."""

    def arrived(self, probe: LeaseProbe) -> None:
        if probe.passed_by is not None:
            self._newest[probe.passed_by] = probe

    def join(self, as_of: float) -> LeaseProbe | None:
        """The probe to pass on, once all watchers have passed on a newer one than before. `as_of`: of the listings.

        Probes are told apart by time and not by round: a watcher may be a round behind the others for long, and a
        QosTicker that was restarted counts from 1 again.
        """
        if len(self._newest) < len(SourceName):
            return None
        oldest = min(self._newest.values(), key=lambda probe: probe.sent_ns)
        if oldest.sent_ns <= self._joined_ns:
            return None
        self._joined_ns = oldest.sent_ns
        return replace(oldest, passed_by=None, as_of=as_of)
