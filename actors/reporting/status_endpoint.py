"""The JSON document that /status answers with (docs/commands.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from actors.framework.messages import ActorReport
from actors.messages.facts import SourceName
from actors.messages.reports import PolicyCondition
from actors.reporting.agent_state import AgentState
from actors.reporting.closer_state import CloserReport
from actors.reporting.contact import Contact
from config.domain.addresses import Endpoint
from config.domain.ids import PolicyKey
from config.version import VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class DatapathView:
    """The kernel side of an agent. The functions are called for each request, in the HTTP server's thread."""

    build: str
    cgroup: str
    hooks: Callable[[], list[str]]
    """Names of the attached hooks."""
    lease_age_seconds: Callable[[], float]
    before_us: Callable[[], Mapping[str, list[str]]]
    """Hook -> programs of others that run before ours."""
    closer: Callable[[], CloserReport]
    warnings: Callable[[], list[str]]
    """What keeps the agent from redirecting as it should, with the remedy."""


class LeaderView(Protocol):
    """The election of a controller."""

    @property
    def holder(self) -> str: ...

    def leads(self) -> bool: ...


def status_json(
    state: AgentState,
    *,
    node: str,
    source: str,
    contacts: Mapping[SourceName, Contact],
    datapath: DatapathView | None,
    leader: LeaderView | None,
    metrics_fault: str,
) -> dict[str, object]:
    """`source` is `source.kind` of the configuration. An agent has a `datapath`, and a controller a `leader`."""
    document: dict[str, object] = {"node": node, "version": VERSION}
    if datapath is not None:
        document["build"] = datapath.build
    document["source"] = {
        "kind": source,
        "synced": state.synced == set(SourceName),
        "streams": [_stream_json(name, contact) for name, contact in contacts.items()],
    }
    if datapath is not None:
        document["datapath"] = {
            "cgroup": datapath.cgroup,
            "hooks": datapath.hooks(),
            "lease_age_seconds": round(datapath.lease_age_seconds(), 3),
            "lease_withheld": state.applied.lease_withheld,
            "programs_before_us": datapath.before_us(),
            "warnings": datapath.warnings(),
        }
        closer = datapath.closer()
        document["closer"] = {"state": closer.state, "message": closer.message}
    if leader is not None:
        document["leader"] = {"leads": leader.leads(), "holder": leader.holder}
    if metrics_fault:
        document["metrics"] = {"fault": metrics_fault}
    document["actors"] = _actors_json(state.actors)
    document["policies"] = _policies_json(state.conditions())
    return document


def _stream_json(source: SourceName, contact: Contact) -> dict[str, object]:
    silent = contact.silent_seconds
    return {
        "name": source.value,
        "state": contact.state,
        "silent_seconds": None if silent is None else round(silent, 1),
        "trouble_seconds": round(contact.trouble_seconds, 1),
        "message": contact.message,
    }


def _actors_json(actors: Iterable[ActorReport]) -> list[dict[str, object]]:
    return [
        {"name": actor.name, "state": actor.state.value, "restarts": actor.restarts, "mailbox": actor.mailbox}
        for actor in actors
    ]


def _policies_json(conditions: Mapping[PolicyKey, PolicyCondition]) -> list[dict[str, object]]:
    return [
        {
            "name": condition.key.name,
            "service_id": condition.policy_id,
            "state": condition.state.value,
            "reason": condition.reason,
            "message": condition.message,
            "mode": "Shadow" if condition.shadow else "Redirect",
            "percentage": condition.percentage,
            "frontends": [str(Endpoint(f.address, f.port)) for f in condition.frontends],
            "named_frontends": [str(frontend) for frontend in condition.named_frontends],
            "backends": [str(backend) for backend in condition.backends],
        }
        for _, condition in sorted(conditions.items())
    ]
