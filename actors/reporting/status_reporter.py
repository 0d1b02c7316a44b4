"""StatusReporter: owns the conditions as an operator sees them: the log's lines and /healthz, /readyz, /status.

In: PoliciesResolved (ConflictResolver), DesiredStateApplied (MapWriter), SourceSynced and SourceHeard (the watchers),
ActorsReported (Supervisor), QosWindowElapsed (QosTicker), MetricsServed (MetricsExporter). Out: ResyncDesiredState
(ConflictResolver), at start.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import ClassVar, Protocol

from actors.framework.actor import AgentActor, OwnedThread
from actors.framework.http import HttpServer
from actors.framework.http_exchange import Answer
from actors.framework.messages import ActorsReported, Message
from actors.messages.desired import ResyncDesiredState
from actors.messages.facts import SourceName, SourceSynced
from actors.messages.reports import (
    DesiredStateApplied,
    MetricsServed,
    PoliciesResolved,
    PolicyState,
    QosWindowElapsed,
    SourceHeard,
)
from actors.reporting.agent_state import AgentState, ConditionChange, actors_document, policies_document
from actors.reporting.change_log import ChangeLog, Line
from actors.reporting.contact import Contact, contacts_document, problem
from config.settings import HealthSettings
from config.version import VERSION

_log = logging.getLogger(__name__)
_QUIET = {PolicyState.ACTIVE, PolicyState.DISABLED, PolicyState.NODE_NOT_SELECTED}


@dataclass(frozen=True, slots=True, kw_only=True)
class DatapathView:
    """What /status says of the kernel side, read when it is asked."""

    build: str
    cgroup: str
    hooks: Callable[[], list[str]]
    lease_age_seconds: Callable[[], float]
    before_us: Callable[[], Mapping[str, list[str]]]
    """Hook -> foreign programs that run before ours."""
    warnings: Callable[[], list[str]]
    """What keeps it from redirecting as it should, with the remedy."""


class LeaderView(Protocol):
    """What /status says of the controller's election."""

    @property
    def holder(self) -> str: ...

    def leads(self) -> bool: ...


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
        """The agent has a datapath, the controller an election."""
        super().__init__()
        self._node = node
        self._source = source
        self._health = health
        self._datapath = datapath
        self._leader = leader
        self._state = AgentState()
        self._heard_at = time.monotonic()
        self._limited: frozenset[int] = frozenset()
        self._metrics_fault = ""
        self._changes = ChangeLog()
        self._blind: frozenset[SourceName] = frozenset()
        """Sources of which the log has said that they hear nothing."""

    def started(self) -> None:
        routes = {"/healthz": self._healthz, "/readyz": self._readyz, "/status": self._status}
        server = HttpServer(section="health", address=self._health.address, port=self._health.port, routes=routes)
        self.own(OwnedThread(self, "health-http", server.run, server.stop))
        self.send("ConflictResolver", ResyncDesiredState())

    def _on_policies_resolved(self, message: PoliciesResolved) -> None:
        changes = self._state.resolve(message)
        if message.complete:  # the resolver sends it only when every source is synced
            self._state.synced = set(SourceName)
        self._log_changes(changes)

    def _on_desired_state_applied(self, message: DesiredStateApplied) -> None:
        self._log_changes(self._state.apply(message))

    def _on_source_synced(self, message: SourceSynced) -> None:
        self._state.synced.add(message.source)

    def _on_source_heard(self, message: SourceHeard) -> None:
        self._state.heard[message.source] = message

    def _on_actors_reported(self, message: ActorsReported) -> None:
        """Each second: also the moment to see what shows by its duration alone."""
        self._state.actors = message.actors
        self._heard_at = time.monotonic()
        self._log_lines(self._changes.due(self._heard_at))
        self._log_blindness()

    def _log_blindness(self) -> None:
        if self._leader is not None and not self._leader.leads():
            return
        found = {
            source: text for source, each in self._contacts().items() if (text := problem(source, each, at_once=False))
        }
        for source in found.keys() - self._blind:
            _log.error("%s; the last known state stays in force", found[source])
        for source in self._blind - found.keys():
            _log.info("source %s has recovered", source)
        self._blind = frozenset(found)

    def _contacts(self) -> dict[SourceName, Contact]:
        return self._state.contacts(time.monotonic(), watched=self._source == "kubernetes")

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

    # answers, in the server's thread: they read whole values, and change nothing

    def _healthz(self) -> Answer:
        return _verdict(self._state.unhealthy(time.monotonic() - self._heard_at))

    def _readyz(self) -> Answer:
        # A process that stands by is as ready as it can be; a roll-out must not wait for the other's end.
        if self._leader is not None and not self._leader.leads():
            return _verdict([])
        return _verdict(self._state.unready(self._contacts(), attaches=self._datapath is not None))

    def _status(self) -> Answer:
        document: dict[str, object] = {"node": self._node, "version": VERSION}
        if self._datapath is not None:
            document["build"] = self._datapath.build
        document["source"] = {
            "kind": self._source,
            "synced": self._state.synced == set(SourceName),
            "streams": contacts_document(self._contacts()),
        }
        if self._datapath is not None:
            document["datapath"] = {
                "cgroup": self._datapath.cgroup,
                "hooks": self._datapath.hooks(),
                "lease_age_seconds": round(self._datapath.lease_age_seconds(), 3),
                "lease_withheld": self._state.applied.lease_withheld,
                "programs_before_us": self._datapath.before_us(),
                "warnings": self._datapath.warnings(),
            }
        if self._leader is not None:
            document["leader"] = {"leads": self._leader.leads(), "holder": self._leader.holder}
        if self._metrics_fault:
            document["metrics"] = {"fault": self._metrics_fault}
        document["actors"] = actors_document(self._state.actors)
        document["policies"] = policies_document(self._state.conditions())
        return Answer(HTTPStatus.OK, "application/json", json.dumps(document, indent=1).encode() + b"\n")


def _line(change: ConditionChange) -> Line | None:
    """None for a change that is not worth a line."""
    key, former, present = change
    if present is None:
        return Line(level=logging.INFO, text=f"policy {key.name} no longer exists")
    if former is not None and (former.state, former.message) == (present.state, present.message):
        return None
    level = logging.INFO if present.state in _QUIET else logging.WARNING
    return Line(level=level, text=f"policy {key.name} is {present.state.value}: {present.message}")


def _verdict(missing: list[str]) -> Answer:
    if missing:
        return Answer(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", ("\n".join(missing) + "\n").encode())
    return Answer(HTTPStatus.OK, "text/plain", b"ok\n")
