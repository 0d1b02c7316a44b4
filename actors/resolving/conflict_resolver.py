"""ConflictResolver: owns the desired state: what the policies that are in force ask of this node.

In: facts and SourceSynced (the watchers), ResyncDesiredState (MapWriter, StatusReporter, MetricsExporter, at their
start), LeaseProbe (the watchers), Flush (itself). Out: ApplyDesiredState (MapWriter), PoliciesResolved (StatusReporter,
MetricsExporter), WatchServices (ServiceWatcher), ResyncSource (the watchers, at start), LeaseProbe (MapWriter).

In the controller, what is decided is a verdict on each policy: ApplyVerdicts (StatusWriter) goes out in
ApplyDesiredState's place, and WatchPods (EndpointWatcher) asks for the Pods.

Handlers edit the indexes; decisions are taken at Flush, which queues behind the facts that wait already: a burst of
facts is decided once. Nothing goes out before every source is synced, and the first thing that goes is complete.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

from actors.framework.actor import AgentActor
from actors.framework.messages import Message
from actors.messages.desired import Flush, ResyncDesiredState
from actors.messages.facts import (
    NodeRemoved,
    NodeUpserted,
    PodRemoved,
    PodUpserted,
    PolicyRemoved,
    PolicyUpserted,
    ServiceRemoved,
    ServiceUpserted,
    SourceName,
    SourceSynced,
)
from actors.messages.subscriptions import ResyncSource, WatchPods, WatchServices
from actors.messages.upkeep import LeaseProbe
from actors.resolving.agent_decision import AgentDecision
from actors.resolving.decision import Decided, Decision
from actors.resolving.desired import named_service
from actors.resolving.resolver_state import ResolverState
from config.domain.ids import NamespacedName
from config.settings import DatapathSettings, RedirectSettings
from k8s.objects.model import PodQuery, Policy

_WATCHERS = ("PolicyWatcher", "ServiceWatcher", "EndpointWatcher")
_W = TypeVar("_W", NamespacedName, PodQuery)


@dataclass(slots=True)
class _Wish(Generic[_W]):
    """What a watcher is asked for, beside what it tells anyway."""

    told: frozenset[_W] | None = None
    revision: int = 0
    """Of the newest wish; 0 before the first. Grows across a restart, so that an answer to the resolver before us is
    not taken for one to us."""
    covered: frozenset[_W] = frozenset()
    """What the source has confirmed that it holds completely."""

    def changes_to(self, wanted: frozenset[_W]) -> bool:
        if wanted == self.told:
            return False
        self.told = wanted
        self.revision = time.monotonic_ns()
        self.covered &= wanted
        return True

    def confirm(self) -> None:
        self.covered = self.told or frozenset()


class ConflictResolver(AgentActor):
    HANDLERS: ClassVar[Mapping[type[Message], str]] = {
        PolicyUpserted: "_on_policy_upserted",
        PolicyRemoved: "_on_policy_removed",
        ServiceUpserted: "_on_service_upserted",
        ServiceRemoved: "_on_service_removed",
        PodUpserted: "_on_pod_upserted",
        PodRemoved: "_on_pod_removed",
        NodeUpserted: "_on_node_upserted",
        NodeRemoved: "_on_node_removed",
        SourceSynced: "_on_source_synced",
        ResyncDesiredState: "_on_resync_desired_state",
        LeaseProbe: "_on_lease_probe",
        Flush: "_on_flush",
    }

    def __init__(
        self, *, datapath: DatapathSettings, redirect: RedirectSettings, decision: Decision[Any] | None = None
    ) -> None:
        super().__init__()
        self._decision = decision or AgentDecision(redirect)
        self._state = ResolverState[Any](datapath=datapath, redirect=redirect, decision=self._decision)
        self._synced: set[SourceName] = set()
        """Sources that have ended a listing; where there is a wish, one that covers what the policies need."""
        self._open = False
        """All sources are synced: the gate to the kernel."""
        self._complete = False
        """The next thing that goes out is everything."""
        self._oldest: float | None = None
        """When the oldest event that is not decided yet was received; None when a Flush is not on its way."""
        self._services = _Wish[NamespacedName]()
        self._pods = _Wish[PodQuery]()
        """In the controller."""
        self._probes: dict[SourceName, LeaseProbe] = {}
        """The newest that each watcher passed on."""
        self._probed_ns = 0
        self._as_of: dict[SourceName, float] = {}
        """When the newest listing of each source was read."""
        self._conflicts = 0
        """As last told."""

    def started(self) -> None:
        for watcher in _WATCHERS:
            self.send(watcher, ResyncSource())

    def _on_policy_upserted(self, message: PolicyUpserted) -> None:
        self._state.upsert_policy(message.policy, message.listing)
        self._wake(message.received_at)

    def _on_policy_removed(self, message: PolicyRemoved) -> None:
        self._state.remove_policy(message.key)
        self._wake(message.received_at)

    def _on_service_upserted(self, message: ServiceUpserted) -> None:
        if self._services.told is not None and message.service.key not in self._services.told:
            return  # told before the watcher heard that it is not wanted; of its end we would not hear
        self._state.upsert_service(message.service, message.listing)
        self._wake(message.received_at)

    def _on_service_removed(self, message: ServiceRemoved) -> None:
        self._state.remove_service(message.key)
        self._wake(message.received_at)

    def _on_pod_upserted(self, message: PodUpserted) -> None:
        self._state.upsert_pod(message.pod, message.listing)
        self._wake(message.received_at)

    def _on_pod_removed(self, message: PodRemoved) -> None:
        self._state.remove_pod(message.key)
        self._wake(message.received_at)

    def _on_node_upserted(self, message: NodeUpserted) -> None:
        self._state.upsert_node(message.node, message.listing)
        self._wake(message.received_at)

    def _on_node_removed(self, message: NodeRemoved) -> None:
        self._state.remove_node(message.name)
        self._wake(message.received_at)

    def _on_source_synced(self, message: SourceSynced) -> None:
        wish = self._wish_of(message.source)
        if wish is not None and message.revision != wish.revision:
            # It does not know what we want: an older wish, or a watcher that was restarted. Nothing was told, so
            # nothing goes.
            if message.revision < wish.revision:
                self._send_wish(message.source)
            return
        self._state.end_listing(message.source, message.listing)
        self._as_of[message.source] = message.as_of
        if wish is None or wish.revision:
            self._synced.add(message.source)
        if wish is not None:
            wish.confirm()
        self._wake(time.monotonic())

    def _wish_of(self, source: SourceName) -> _Wish[NamespacedName] | _Wish[PodQuery] | None:
        if source == SourceName.SERVICES:
            return self._services
        return self._pods if source == SourceName.ENDPOINTS and self._decision.of_cluster else None

    def _watch(self) -> None:
        if SourceName.POLICIES not in self._synced:
            return
        if self._services.changes_to(self._state.named_services):
            self._send_wish(SourceName.SERVICES)
            self._state.drop_unnamed_services()
        # Pods that no policy selects any more need no such care: the source ends their watch, and tells of their end.
        if self._decision.of_cluster and self._pods.changes_to(self._state.pod_queries):
            self._send_wish(SourceName.ENDPOINTS)

    def _send_wish(self, source: SourceName) -> None:
        services, pods = self._services, self._pods
        if source == SourceName.SERVICES and services.told is not None:
            self.send("ServiceWatcher", WatchServices(names=services.told, revision=services.revision))
        elif source == SourceName.ENDPOINTS and pods.told is not None:
            self.send("EndpointWatcher", WatchPods(queries=pods.told, revision=pods.revision))

    def _waits(self, policy: Policy) -> bool:
        """In the controller: for what the sources do not cover yet."""
        service = named_service(policy)
        if service is not None and service not in self._services.covered:
            return True
        return not self._pods.covered.issuperset(self._decision.pod_queries(policy))

    def _on_resync_desired_state(self, _message: ResyncDesiredState) -> None:
        self._complete = True
        self._wake(time.monotonic())

    def _on_lease_probe(self, message: LeaseProbe) -> None:
        """All watchers are well as of the oldest of what they passed on last. Told apart by time, not by round: a
        watcher may be a round behind the others for long, and a restarted QosTicker counts from 1 again."""
        if message.passed_by is not None:
            self._probes[message.passed_by] = message
        self._pass_probe()

    def _pass_probe(self) -> None:
        """Not before what was told until now is decided, and told on."""
        if len(self._probes) < len(SourceName) or self._oldest is not None:
            return
        oldest = min(self._probes.values(), key=lambda probe: probe.sent_ns)
        if oldest.sent_ns > self._probed_ns:
            self._probed_ns = oldest.sent_ns
            self.send("MapWriter", replace(oldest, passed_by=None, as_of=self._listed_as_of()))

    def _listed_as_of(self) -> float:
        """When the oldest of the sources' newest listings was read; 0 while one has ended none."""
        return min((self._as_of.get(source, 0.0) for source in SourceName), default=0.0)

    def _wake(self, received_at: float) -> None:
        if self._oldest is None:
            self._oldest = received_at
            self.tell_self(Flush())
        self._oldest = min(self._oldest, received_at)

    def _on_flush(self, _message: Flush) -> None:
        received_at = self._oldest if self._oldest is not None else time.monotonic()
        self._oldest = None
        self._decide(received_at)
        self._pass_probe()

    def _decide(self, received_at: float) -> None:
        self._watch()
        if not self._open:
            if self._synced != set(SourceName):
                return
            self._open = self._complete = True
        changes = self._state.decide_changes(waits=self._waits if self._decision.of_cluster else None)
        outcomes = self._state.all_outcomes() if self._complete else changes.outcomes
        complete, self._complete = self._complete, False
        if not (complete or outcomes or changes.removed) and self._conflicts == self._state.conflicts:
            return
        self._conflicts = self._state.conflicts
        decided = Decided(
            complete=complete,
            outcomes=outcomes,
            removed=changes.removed,
            conflicts=self._conflicts,
            received_at=received_at,
            as_of=self._listed_as_of(),
        )
        for peer, message in self._decision.messages(decided):
            self.send(peer, message)
