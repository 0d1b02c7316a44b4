"""MetricsExporter: owns the metrics and serves /metrics.

In: PoliciesResolved (ConflictResolver), DesiredStateApplied (MapWriter), HealthChecksCounted (HealthChecker),
SourceHeard (the watchers), ActorsReported (Supervisor), in the controller WriteEnded (StatusWriter). Out:
ResyncDesiredState (ConflictResolver), at start; MetricsServed (StatusReporter).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import ClassVar

from prometheus_client import generate_latest

from actors.framework.actor import AgentActor, OwnedThread
from actors.framework.http import HttpServer
from actors.framework.http_exchange import Answer
from actors.framework.messages import ActorsReported, Message
from actors.messages.checks import HealthChecksCounted
from actors.messages.reports import DesiredStateApplied, MetricsServed, PoliciesResolved, SourceHeard
from actors.messages.resync import ResyncDesiredState
from actors.messages.verdicts import WriteEnded
from actors.reporting.agent_state import AgentState
from actors.reporting.kernel_reading import KernelReading
from actors.reporting.metrics import AgentMetrics
from config.settings import MetricsSettings
from k8s.status.write_requests import StatusWrite

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class MetricsExporter(AgentActor):
    HANDLERS: ClassVar[Mapping[type[Message], str]] = {
        PoliciesResolved: "_on_policies_resolved",
        DesiredStateApplied: "_on_desired_state_applied",
        HealthChecksCounted: "_on_health_checks_counted",
        SourceHeard: "_on_source_heard",
        ActorsReported: "_on_actors_reported",
        WriteEnded: "_on_write_ended",
    }

    def __init__(
        self, *, metrics: MetricsSettings, read: Callable[[], KernelReading] | None = None, build: str = ""
    ) -> None:
        """The agent has kernel counters to read and a build of its kernel programs; the controller has neither."""
        super().__init__()
        self._settings = metrics
        self._state = AgentState()
        self._metrics = AgentMetrics(conditions=lambda: list(self._state.conditions().values()), read=read, build=build)

    def started(self) -> None:
        server = HttpServer(
            section="metrics",
            address=self._settings.address,
            port=self._settings.port,
            routes={"/metrics": self._scrape},
            on_fault=lambda fault: self.send("StatusReporter", MetricsServed(fault=fault)),
        )
        self.own(OwnedThread(self, "metrics-http", server.run, server.stop))
        self.send("ConflictResolver", ResyncDesiredState())

    def _scrape(self) -> Answer:
        return Answer(HTTPStatus.OK, _CONTENT_TYPE, generate_latest(self._metrics.registry))

    def _on_policies_resolved(self, message: PoliciesResolved) -> None:
        for change in self._state.resolve(message):
            if change.present is None:
                self._metrics.forget_policy(change.key)
        self._metrics.policy_conflicts.set(message.conflicts)

    def _on_desired_state_applied(self, message: DesiredStateApplied) -> None:
        self._state.apply(message)
        if message.apply_seconds is not None:
            self._metrics.apply_seconds.observe(message.apply_seconds)

    def _on_health_checks_counted(self, message: HealthChecksCounted) -> None:
        policies = self._state.conditions()
        for count in message.counts:
            if count.policy in policies:  # the metrics of a policy that is gone were removed, and must not come back
                self._metrics.count_checks(count)

    def _on_source_heard(self, message: SourceHeard) -> None:
        if message.heard_at is not None:  # None: a part of the source is new; keep the former time
            self._metrics.heard_at = {**self._metrics.heard_at, message.source: message.heard_at}
        if message.relist_reason:
            self._metrics.source_relists.labels(message.source.value, message.relist_reason).inc()

    def _on_actors_reported(self, message: ActorsReported) -> None:
        for actor in message.actors:
            self._metrics.mailbox_size.labels(actor.name).set(actor.mailbox)
        self._metrics.restarts = {actor.name: actor.restarts for actor in message.actors}

    def _on_write_ended(self, message: WriteEnded) -> None:
        if self._metrics.writes is not None:
            what = "status" if isinstance(message.write, StatusWrite) else "event"
            self._metrics.writes.labels(what, message.answer.result.value).inc()
