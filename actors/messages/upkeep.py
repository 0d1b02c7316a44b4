"""What keeps the kernel maps fresh: the lease, and the affinity rows that go."""

from __future__ import annotations

from dataclasses import dataclass

from actors.framework.messages import Message
from actors.messages.facts import SourceName


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseProbe(Message):
    """QosTicker -> each watcher -> ConflictResolver -> MapWriter: travels the way of facts, so a stuck actor stops it.

    The resolver passes a round on when all three watchers have passed it on, and what they told before is decided;
    MapWriter renews the lease as of `sent_ns`. One that ran out is renewed only when `as_of` is later than its end.
    """

    round: int
    sent_ns: int
    """CLOCK_MONOTONIC when QosTicker sent it."""
    passed_by: SourceName | None = None
    as_of: float = 0.0
    """By the resolver: the oldest `as_of` of the sources' newest listings; 0 while one has ended none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepAffinity(Message):
    """AffinityAger -> MapWriter: remove rows that expired, or whose backend or frontend is gone."""

    now_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendsRemoved(Message):
    """MapWriter -> AffinityAger: backends went away, rows that name them are of no use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AffinitySliceDue(Message):
    """MapWriter -> itself: the next rows of the sweep, behind what waits already."""
