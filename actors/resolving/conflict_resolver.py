"""ConflictResolver: owns the desired state: what the policies that are in force ask of this node.

In: facts and SourceSynced (the watchers), ContainersEnded (ContainerWatcher), HealthChanged (HealthChecker),
ResyncDesiredState (MapWriter, ContainerWatcher, HealthChecker, StatusReporter, MetricsExporter, StatusWriter, at their
start), LeaseProbe (the watchers), Flush (itself). Out: ApplyDesiredState (MapWriter), BackendsSelected
(ContainerWatcher), ChecksSelected (HealthChecker), PoliciesResolved (StatusReporter, MetricsExporter), WatchServices
(ServiceWatcher), ResyncSource (the watchers, at start), LeaseProbe (MapWriter).

In the controller it decides on a verdict for each policy: it sends ApplyVerdicts (StatusWriter) in place of
ApplyDesiredState, BackendsSelected and ChecksSelected, and asks for Pods by WatchPods (EndpointWatcher).

Handlers pass what they receive to Facts. Decisions are taken at Flush, which queues behind the facts that wait already,
so a burst of facts is decided once. Nothing goes out before every source is synced (SyncGate), and the first message
that goes out is complete. Subscriptions holds what the watchers were asked for. LeaseRounds joins the lease probes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from actors.framework.actor import AgentActor
from actors.framework.messages import Message
from actors.messages.backends import ContainersEnded
from actors.messages.checks import HealthChanged
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
from actors.messages.resync import ResyncDesiredState, ResyncSource
from actors.messages.subscriptions import WATCHERS
from actors.messages.upkeep import LeaseProbe
from actors.resolving.decision import Decided, Decision
from actors.resolving.lease_rounds import LeaseRounds
from actors.resolving.resolver_state import ResolverState
from actors.resolving.subscriptions import Coverage, Subscriptions
from actors.resolving.sync_gate import SyncGate
from config.domain.addresses import Address
from config.settings import DatapathSettings, RedirectSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Flush(Message):
    """ConflictResolver -> itself: every fact that was waiting has been handled, so decide once for all of them."""


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
        ContainersEnded: "_on_containers_ended",
        HealthChanged: "_on_health_changed",
        LeaseProbe: "_on_lease_probe",
        Flush: "_on_flush",
    }

    def __init__(
        self,
        *,
        datapath: DatapathSettings,
        redirect: RedirectSettings,
        decision: Decision[Any],
        subscriptions: Subscriptions,
    ) -> None:
        """`subscriptions` must be new."""
        super().__init__()
        self._decision = decision
        self._state = ResolverState[Any](datapath=datapath, redirect=redirect, decision=decision)
        self._facts = self._state.facts
        self._subscriptions = subscriptions
        self._gate = SyncGate()
        self._rounds = LeaseRounds()
        self._complete = True
        """Whether the next message that goes out must hold everything."""
        self._oldest: float | None = None
        """time.monotonic() at which the oldest undecided event was received; None when no Flush is on its way."""
        self._conflicts = 0
        """The number of conflicts that was reported last."""
        self._addresses: frozenset[Address] | None = None
        """The addresses of Pods that were sent last."""

    def started(self) -> None:
        for watcher in WATCHERS:
            self.send(watcher, ResyncSource())

    def _on_policy_upserted(self, message: PolicyUpserted) -> None:
        self._facts.upsert_policy(message.policy, message.listing)
        self._wake(message.received_at)

    def _on_policy_removed(self, message: PolicyRemoved) -> None:
        self._facts.remove_policy(message.key)
        self._wake(message.received_at)

    def _on_service_upserted(self, message: ServiceUpserted) -> None:
        if self._subscriptions.is_unsubscribed(message.service.key):
            return
        self._facts.upsert_service(message.service, message.listing)
        self._wake(message.received_at)

    def _on_service_removed(self, message: ServiceRemoved) -> None:
        self._facts.remove_service(message.key)
        self._wake(message.received_at)

    def _on_pod_upserted(self, message: PodUpserted) -> None:
        self._facts.upsert_pod(message.pod, message.listing)
        self._wake(message.received_at)

    def _on_pod_removed(self, message: PodRemoved) -> None:
        self._facts.remove_pod(message.key)
        self._wake(message.received_at)

    def _on_node_upserted(self, message: NodeUpserted) -> None:
        self._facts.upsert_node(message.node, message.listing)
        self._wake(message.received_at)

    def _on_node_removed(self, message: NodeRemoved) -> None:
        self._facts.remove_node(message.name)
        self._wake(message.received_at)

    def _on_containers_ended(self, message: ContainersEnded) -> None:
        self._facts.containers_ended(message)
        self._wake(message.received_at)

    def _on_health_changed(self, message: HealthChanged) -> None:
        self._facts.health_changed(message)
        self._wake(message.received_at)

    def _on_source_synced(self, message: SourceSynced) -> None:
        coverage = self._subscriptions.answer(message)
        if coverage == Coverage.UNKNOWN:
            self._request(message.source)
        if coverage != Coverage.WHOLE:
            # The listing does not cover what we ask for, so an object that is not in it may still exist.
            return
        self._facts.end_listing(message.source, message.listing)
        requested = self._subscriptions.is_requested(message.source)
        self._gate.listed(message.source, message.as_of, covers_policies=requested)
        self._wake(time.monotonic())

    def _subscribe(self) -> None:
        if not self._gate.is_synced(SourceName.POLICIES):
            return
        for source in self._subscriptions.change(self._facts):
            self._request(source)
            if source == SourceName.SERVICES:
                self._facts.drop_unnamed_services()
            # Pods need nothing of the kind: the source reports those that no policy selects any longer as removed.

    def _request(self, source: SourceName) -> None:
        request = self._subscriptions.request(source)
        if request is not None:
            self.send(*request)

    def _on_resync_desired_state(self, _message: ResyncDesiredState) -> None:
        self._complete = True
        self._wake(time.monotonic())

    def _on_lease_probe(self, message: LeaseProbe) -> None:
        self._rounds.arrived(message)
        self._pass_probe()

    def _pass_probe(self) -> None:
        """Passes a probe on, once everything that arrived before it has been decided and sent."""
        if self._oldest is None and (probe := self._rounds.join(self._gate.as_of)) is not None:
            self.send("MapWriter", probe)

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
        self._subscribe()
        if not self._gate.is_open:
            return
        changes = self._state.decide_changes(is_known=self._subscriptions.is_known)
        complete, self._complete = self._complete, False
        outcomes = self._state.all_outcomes() if complete else changes.outcomes
        addresses = self._changed_addresses(complete=complete)
        conflicts_changed = self._conflicts != self._state.conflicts
        if not (complete or outcomes or changes.removed or conflicts_changed or addresses is not None):
            return
        self._conflicts = self._state.conflicts
        decided = Decided(
            complete=complete,
            outcomes=outcomes,
            removed=changes.removed,
            conflicts=self._conflicts,
            received_at=received_at,
            as_of=self._gate.as_of,
            pod_addresses=addresses,
        )
        for peer, message in self._decision.messages(decided):
            self.send(peer, message)

    def _changed_addresses(self, *, complete: bool) -> frozenset[Address] | None:
        before, self._addresses = self._addresses, self._decision.pod_addresses(self._facts)
        return self._addresses if complete or self._addresses != before else None
