"""How an actor that knows nothing asks for everything again.

It asks ConflictResolver for what is decided, and a watcher for the objects of its source.
"""

from __future__ import annotations

from dataclasses import dataclass

from actors.framework.messages import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class ResyncDesiredState(Message):
    """MapWriter, ContainerWatcher, HealthChecker, StatusWriter, StatusReporter or MetricsExporter -> ConflictResolver,
    at their start: send everything again.

    Once all sources are synced, ConflictResolver sends complete messages to all of them: ApplyDesiredState,
    BackendsSelected and ChecksSelected in the agent, ApplyVerdicts in the controller, and PoliciesResolved in both.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ResyncSource(Message):
    """ConflictResolver, MapWriter, StatusWriter, DecisionRecorder -> a watcher: report everything again, under a new
    listing.

    All but MapWriter send it at their start, when they know nothing. MapWriter sends it when the lease ran out; it
    needs objects that were read after that, and says so by `since`.
    """

    since: float = 0.0
    """time.monotonic(): report only what was read then or later. 0: report what is known already."""
