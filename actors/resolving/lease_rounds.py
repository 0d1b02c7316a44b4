"""Joins the lease probes of the three watchers into one. Pure.

The lease may be renewed as of the oldest of the newest probes that the watchers passed on (see LeaseProbe).
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
        """LeaseProbe.sent_ns of the probe that `join` returned last."""

    def arrived(self, probe: LeaseProbe) -> None:
        if probe.passed_by is not None:
            self._newest[probe.passed_by] = probe

    def join(self, as_of: float) -> LeaseProbe | None:
        """Returns the next probe for MapWriter. Returns None until each watcher has passed on a probe that is newer
        than the one that was returned last. The returned probe gets this `as_of`."""
        if len(self._newest) < len(SourceName):
            return None
        oldest = min(self._newest.values(), key=lambda probe: probe.sent_ns)
        if oldest.sent_ns <= self._joined_ns:
            return None
        self._joined_ns = oldest.sent_ns
        return replace(oldest, passed_by=None, as_of=as_of)
