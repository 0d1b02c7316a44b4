"""StatusReporter: shows the state of this process to operators, in the log and at /healthz, /readyz and /status.

In: PoliciesResolved (ConflictResolver), DesiredStateApplied (MapWriter), SourceSynced and SourceHeard (the watchers),
ActorsReported (Supervisor), QosWindowElapsed (QosTicker), MetricsServed (MetricsExporter). Out: ResyncDesiredState
(ConflictResolver), at start.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import ClassVar

from actors.framework.actor import AgentActor, OwnedThread
from actors.framework.http import HttpServer
from actors.framework.http_exchange import Answer
from actors.framework.messages import ActorsReported, Message
from actors.messages.facts import SourceName, SourceSynced
from actors.messages.reports import (
    DesiredStateApplied,
    MetricsServed,
    PoliciesResolved,
    PolicyState,
    QosWindowElapsed,
    SourceHeard,
)
from actors.messages.resync import ResyncDesiredState
from actors.reporting.agent_state import AgentState, ConditionChange
from actors.reporting.change_log import ChangeLog, Line
from actors.reporting.contact import Contact, problem_of
from actors.reporting.readiness import unhealthy_reasons, unready_reasons
from actors.reporting.status_endpoint import DatapathView, LeaderView, status_json
from config.settings import HealthSettings

_log = logging.getLogger(__name__)
_NORMAL_STATES = {PolicyState.ACTIVE, PolicyState.DISABLED, PolicyState.NODE_NOT_SELECTED}
"""They are logged with level INFO, and all others with WARNING."""


class StatusReporter(AgentActor):
    HANDLERS: ClassVar[Mapping[type[Message], str]] = {
        PoliciesResolved: "_on_policies_resolved",
        DesiredStateApplied: "_on_desired_state_applied",
        SourceSynced: "_on_source_synced",
        SourceHeard: "_on_source_heard",
        ActorsReported: "_on_actors_reported",
        QosWindowElapsed: "_on_qos_window_elapsed",
        MetricsServed: "_on_metrics_served",
    }

    def __init__(
        self,
        *,
        node: str,
        source: str,
        health: HealthSettings,
        datapath: DatapathView | None,
        leader: LeaderView | None = None,
    ) -> None:
        """`source` is `source.kind`. An agent has a `datapath`, and a controller a `leader`."""
        super().__init__()
        self._node = node
        self._source = source
        self._health = health
        self._datapath = datapath
        self._leader = leader
        self._state = AgentState()
        self._supervisor_heard_at = time.monotonic()
        self._limited: frozenset[int] = frozenset()
        self._metrics_fault = ""
        self._changes = ChangeLog()
        self._logged_problems: frozenset[SourceName] = frozenset()
        """Sources whose problem has been logged."""

    def started(self) -> None:
        routes = {"/healthz": self._healthz, "/readyz": self._readyz, "/status": self._status}
        server = HttpServer(section="health", address=self._health.address, port=self._health.port, routes=routes)
        self.own(OwnedThread(self, "health-http", server.run, server.stop))
        self.send("ConflictResolver", ResyncDesiredState())

    def _on_policies_resolved(self, message: PoliciesResolved) -> None:
        changes = self._state.resolve(message)
        if message.complete:  # ConflictResolver sends it only when every source is synced
            self._state.synced = set(SourceName)
        self._log_changes(changes)

    def _on_desired_state_applied(self, message: DesiredStateApplied) -> None:
        self._log_changes(self._state.apply(message))

    def _on_source_synced(self, message: SourceSynced) -> None:
        self._state.synced.add(message.source)

    def _on_source_heard(self, message: SourceHeard) -> None:
        self._state.heard[message.source] = message

    def _on_actors_reported(self, message: ActorsReported) -> None:
        """It arrives each second, so this is also the moment to look for problems that appear as time passes."""
        self._state.actors = message.actors
        self._supervisor_heard_at = time.monotonic()
        self._log_lines(self._changes.due(self._supervisor_heard_at))
        self._log_problems()

    def _log_problems(self) -> None:
        if self._leader is not None and not self._leader.leads():
            return
        problems = {
            source: problem
            for source, contact in self._contacts().items()
            if (problem := problem_of(source, contact, at_once=False))
        }
        for source in problems.keys() - self._logged_problems:
            _log.error("%s; the last known state stays in force", problems[source])
        for source in self._logged_problems - problems.keys():
            _log.info("source %s has recovered", source)
        self._logged_problems = frozenset(problems)

    def _contacts(self) -> dict[SourceName, Contact]:
        return self._state.contacts(time.monotonic(), has_server=self._source == "kubernetes")

    def _on_qos_window_elapsed(self, message: QosWindowElapsed) -> None:
        limited = frozenset(message.limited)
        if limited - self._limited:
            names = {each.policy_id: each.key.name for each in self._state.conditions().values()}
            for policy_id in limited - self._limited:
                name = names.get(policy_id, policy_id)
                text = f"policy {name} is at its limit: further calls of this second are not redirected"
                line = Line(level=logging.INFO, text=text)
                self._log_lines(self._changes.changed(policy_id, line, time.monotonic()))
        self._limited = limited

    def _log_changes(self, changes: Iterable[ConditionChange]) -> None:
        for change in changes:
            line = _line(change)
            if line is not None:
                self._log_lines(self._changes.changed(change.key, line, time.monotonic()))

    def _log_lines(self, lines: Iterable[Line]) -> None:
        for line in lines:
            _log.log(line.level, "%s", line.text)

    def _on_metrics_served(self, message: MetricsServed) -> None:
        self._metrics_fault = message.fault

    # --- the answers; they run in the HTTP server's thread, so they only read, each value once ------------------------

    def _healthz(self) -> Answer:
        return _ok_or(unhealthy_reasons(self._state.actors, time.monotonic() - self._supervisor_heard_at))

    def _readyz(self) -> Answer:
        # A standby controller reads no source, and is ready. Otherwise a roll-out would wait for the leader to end.
        if self._leader is not None and not self._leader.leads():
            return _ok_or([])
        return _ok_or(unready_reasons(self._state, self._contacts(), attaches=self._datapath is not None))

    def _status(self) -> Answer:
        document = status_json(
            self._state,
            node=self._node,
            source=self._source,
            contacts=self._contacts(),
            datapath=self._datapath,
            leader=self._leader,
            metrics_fault=self._metrics_fault,
        )
        return Answer(HTTPStatus.OK, "application/json", json.dumps(document, indent=1).encode() + b"\n")


def _line(change: ConditionChange) -> Line | None:
    """Returns None for a change that need not be logged."""
    key, former, present = change
    if present is None:
        return Line(level=logging.INFO, text=f"policy {key.name} no longer exists")
    if former is not None and (former.state, former.message) == (present.state, present.message):
        return None
    level = logging.INFO if present.state in _NORMAL_STATES else logging.WARNING
    return Line(level=level, text=f"policy {key.name} is {present.state.value}: {present.message}")


def _ok_or(reasons: list[str]) -> Answer:
    if reasons:
        return Answer(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", ("\n".join(reasons) + "\n").encode())
    return Answer(HTTPStatus.OK, "text/plain", b"ok\n")
