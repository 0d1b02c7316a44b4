"""ConflictResolver: owns the desired state: what the policies that are in force ask of this node.

In: facts and SourceSynced (the watchers), ResyncDesiredState (MapWriter, StatusReporter, MetricsExporter, at their
start), LeaseProbe (the watchers), Flush (itself). Out: ApplyDesiredState (MapWriter), PoliciesResolved (StatusReporter,
MetricsExporter), WatchServices (ServiceWatcher), ResyncSource (the watchers, at start), LeaseProbe (MapWriter).

Handlers edit the indexes; decisions are taken at Flush, which queues behind the facts that wait already: a burst of
facts is decided once. Nothing goes to MapWriter before every source is synced, and the first thing that goes is
complete.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from actors.base import AgentActor
from actors.messages import (
    ApplyDesiredState,
    Flush,
    LeaseProbe,
    Message,
    NodeRemoved,
    NodeUpserted,
    PodRemoved,
    PodUpserted,
    PoliciesResolved,
    PolicyRemoved,
    PolicyUpserted,
    ResyncDesiredState,
    ResyncSource,
    ServiceRemoved,
    ServiceUpserted,
    SourceName,
    SourceSynced,
    WatchServices,
)
from actors.resolver_state import ResolverState
from config.settings import DatapathSettings, RedirectSettings
from k8s.objects import NamespacedName

_WATCHERS = ("PolicyWatcher", "ServiceWatcher", "EndpointWatcher")
_REPORTERS = ("StatusReporter", "MetricsExporter")


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

    def __init__(self, *, datapath: DatapathSettings, redirect: RedirectSettings) -> None:
        super().__init__()
        self._state = ResolverState(datapath=datapath, redirect=redirect)
        self._synced: set[SourceName] = set()
        """Sources that have ended a listing; of Services, one that covers what the policies name."""
        self._open = False
        """All sources are synced: the gate to the kernel."""
        self._complete = False
        """The next thing that goes out is everything."""
        self._oldest: float | None = None
        """When the oldest event that is not decided yet was received; None when a Flush is not on its way."""
        self._watched: frozenset[NamespacedName] | None = None
        self._revision = 0
        """Of the newest WatchServices; 0 before the first. Grows across a restart, so that an answer to the resolver
        before us is not taken for one to us."""
        self._probes: dict[SourceName, LeaseProbe] = {}
        """The newest that each watcher passed on."""
        self._probed_ns = 0
        self._conflicts = 0
        """As last told."""

    def started(self) -> None:
        for watcher in _WATCHERS:
            self.send(watcher, ResyncSource())

    def _on_policy_upserted(self, message: PolicyUpserted) -> None:
        self._state.upsert_policy(message.policy, message.generation)
        self._wake(message.received_at)

    def _on_policy_removed(self, message: PolicyRemoved) -> None:
        self._state.remove_policy(message.key)
        self._wake(message.received_at)

    def _on_service_upserted(self, message: ServiceUpserted) -> None:
        if self._watched is not None and message.service.key not in self._watched:
            return  # told before the watcher heard that it is not wanted; of its end we would not hear
        self._state.upsert_service(message.service, message.generation)
        self._wake(message.received_at)

    def _on_service_removed(self, message: ServiceRemoved) -> None:
        self._state.remove_service(message.key)
        self._wake(message.received_at)

    def _on_pod_upserted(self, message: PodUpserted) -> None:
        self._state.upsert_pod(message.pod, message.generation)
        self._wake(message.received_at)

    def _on_pod_removed(self, message: PodRemoved) -> None:
        self._state.remove_pod(message.key)
        self._wake(message.received_at)

    def _on_node_upserted(self, message: NodeUpserted) -> None:
        self._state.upsert_node(message.node, message.generation)
        self._wake(message.received_at)

    def _on_node_removed(self, message: NodeRemoved) -> None:
        self._state.remove_node(message.name)
        self._wake(message.received_at)

    def _on_source_synced(self, message: SourceSynced) -> None:
        if message.source == SourceName.SERVICES and message.wanted != self._revision:
            # It does not know what we want: an older wish, or a watcher that was restarted. Nothing was told, so
            # nothing goes.
            if message.wanted < self._revision:
                self._send_watch_services()
            return
        self._state.end_listing(message.source, message.generation)
        if message.source != SourceName.SERVICES or self._revision:
            self._synced.add(message.source)
        self._wake(time.monotonic())

    def _watch_services(self) -> None:
        names = self._state.named_services
        if SourceName.POLICIES in self._synced and names != self._watched:
            self._watched = names
            self._revision = time.monotonic_ns()
            self._send_watch_services()
            self._state.drop_unnamed_services()

    def _send_watch_services(self) -> None:
        if self._watched is not None:
            self.send("ServiceWatcher", WatchServices(names=self._watched, revision=self._revision))

    def _on_resync_desired_state(self, _message: ResyncDesiredState) -> None:
        self._complete = True
        self._wake(time.monotonic())

    def _on_lease_probe(self, message: LeaseProbe) -> None:
        """All watchers are well as of the oldest of what they passed on last. Told apart by time, not by round: a
        watcher may be a round behind the others for long, and a restarted QosTicker counts from 1 again."""
        if message.passed_by is not None:
            self._probes[message.passed_by] = message
        if len(self._probes) < len(SourceName):
            return
        oldest = min(self._probes.values(), key=lambda probe: probe.sent_ns)
        if oldest.sent_ns > self._probed_ns:
            self._probed_ns = oldest.sent_ns
            self.send("MapWriter", replace(oldest, passed_by=None))

    def _wake(self, received_at: float) -> None:
        if self._oldest is None:
            self._oldest = received_at
            self.tell_self(Flush())
        self._oldest = min(self._oldest, received_at)

    def _on_flush(self, _message: Flush) -> None:
        received_at = self._oldest if self._oldest is not None else time.monotonic()
        self._oldest = None
        self._watch_services()
        if not self._open:
            if self._synced != set(SourceName):
                return
            self._open = self._complete = True
        changes = self._state.decide_changes()
        outcomes = self._state.all_outcomes() if self._complete else changes.outcomes
        complete, self._complete = self._complete, False
        if complete or outcomes or changes.removed:
            self.send(
                "MapWriter",
                ApplyDesiredState(
                    complete=complete,
                    upserted=tuple(outcome.desired for outcome in outcomes),
                    removed=changes.removed,
                    received_at=received_at,
                ),
            )
        elif self._conflicts == self._state.conflicts:
            return  # else a BalancingPolicy lost or won, which has no condition: the number alone changed
        self._conflicts = self._state.conflicts
        resolved = PoliciesResolved(
            complete=complete,
            conditions=tuple(outcome.condition for outcome in outcomes),
            removed=changes.removed,
            conflicts=self._conflicts,
        )
        for reporter in _REPORTERS:
            self.send(reporter, resolved)
