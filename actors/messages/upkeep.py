"""What keeps the kernel maps current: renewing the lease, and removing affinity rows."""

from __future__ import annotations

from dataclasses import dataclass

from actors.framework.messages import Message
from actors.messages.facts import SourceName


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseProbe(Message):
    """QosTicker -> each watcher -> ConflictResolver -> MapWriter, each second.

    A probe takes the path that facts take, so that an actor that is stuck stops it. ConflictResolver passes a probe on
    when all three watchers have passed theirs on and it has decided everything that they reported before. MapWriter
    then renews the lease as of `sent_ns`. A lease that ran out is renewed only by a probe whose `as_of` is later than
    its end.
    """

    sent_ns: int
    """CLOCK_MONOTONIC at which QosTicker sent it."""
    passed_by: SourceName | None = None
    as_of: float = 0.0
    """Set by ConflictResolver: the oldest `as_of` among the newest listings of the sources; 0 while a source has not
    completed a listing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepAffinity(Message):
    """AffinityAger -> MapWriter: remove the affinity rows that expired, or that name a frontend or backend that no
    longer exists."""

    now_ns: int
    """CLOCK_MONOTONIC at which AffinityAger sent it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendsRemoved(Message):
    """MapWriter -> AffinityAger: some backends were removed, so affinity rows that name them are useless."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AffinitySliceDue(Message):
    """MapWriter -> itself: continue the sweep, after the messages that are waiting already."""
