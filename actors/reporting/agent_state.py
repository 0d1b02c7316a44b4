"""What is known of the agent's state, and the answers of /status, /readyz and /healthz made from it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from actors.framework.messages import ActorReport
from actors.messages.facts import SourceName
from actors.messages.reports import (
    DesiredStateApplied,
    PoliciesResolved,
    PolicyCondition,
    PolicyState,
    SourceHeard,
    WriteFault,
)
from actors.reporting.contact import Contact, contact, problem
from config.domain.addresses import Endpoint
from config.domain.ids import PolicyKey

SILENCE_SECONDS = 10.0


class ConditionChange(NamedTuple):
    key: PolicyKey
    former: PolicyCondition | None
    present: PolicyCondition | None


@dataclass(slots=True)
class AgentState:
    """Merges what the reporting actor hears; a message costs what it changes, however many policies there are."""

    applied: DesiredStateApplied = DesiredStateApplied(faults=(), attached=False, apply_seconds=None)
    actors: tuple[ActorReport, ...] = ()
    synced: set[SourceName] = field(default_factory=set)
    heard: dict[SourceName, SourceHeard] = field(default_factory=dict)
    """As each source told last how it stands."""
    conflicts: int = 0
    resolved: bool = False
    _decided: dict[PolicyKey, PolicyCondition] = field(default_factory=dict)
    _faults: dict[PolicyKey, tuple[WriteFault, ...]] = field(default_factory=dict)
    _conditions: dict[PolicyKey, PolicyCondition] = field(default_factory=dict)
    """As decided, with what the kernel said of it."""

    def conditions(self) -> dict[PolicyKey, PolicyCondition]:
        """A copy, made in one step of the interpreter: for other threads as well."""
        return self._conditions.copy()

    def resolve(self, message: PoliciesResolved) -> list[ConditionChange]:
        touched = {*message.removed, *(condition.key for condition in message.conditions)}
        if message.complete:
            touched |= self._decided.keys()
            self._decided.clear()
        for key in message.removed:
            self._decided.pop(key, None)
        self._decided |= {condition.key: condition for condition in message.conditions}
        self.conflicts = message.conflicts
        self.resolved = True
        return self._merge(touched)

    def apply(self, message: DesiredStateApplied) -> list[ConditionChange]:
        former = self.applied.faults
        self.applied = message
        if message.faults == former:
            return []
        touched = set(self._faults)
        self._faults = {}
        for fault in message.faults:
            self._faults[fault.key] = (*self._faults.get(fault.key, ()), fault)
        return self._merge(touched | self._faults.keys())

    def _merge(self, keys: Iterable[PolicyKey]) -> list[ConditionChange]:
        changes = []
        for key in keys:
            former, present = self._conditions.get(key), self._merged(key)
            if present is None:
                self._conditions.pop(key, None)
            else:
                self._conditions[key] = present
            if former != present:
                changes.append(ConditionChange(key, former, present))
        return changes

    def _merged(self, key: PolicyKey) -> PolicyCondition | None:
        condition = self._decided.get(key)
        if condition is None:
            return None
        for fault in self._faults.get(key, ()):
            if fault.failed:
                condition = replace(
                    condition, state=PolicyState.FAILED, reason="WriteFailed", message=fault.message, backends=()
                )
            else:
                condition = replace(condition, message=f"{condition.message}; {fault.message}")
        return condition

    def contacts(self, now: float, *, watched: bool) -> dict[SourceName, Contact]:
        """`watched`: the sources are a server, see `actors.reporting.contact.contact`."""
        return {source: contact(self.heard.get(source), now, watched=watched) for source in SourceName}

    def unready(self, contacts: Mapping[SourceName, Contact], *, attaches: bool = True) -> list[str]:
        """What is missing; empty when the agent is ready. `attaches`: programs are ours to attach."""
        missing = [f"source {source} is not synced" for source in SourceName if source not in self.synced]
        if not self.resolved:
            missing.append("policies are not resolved yet")
        if attaches and not self.applied.attached:
            missing.append("not all programs are attached")
        return missing + self.blind(contacts)

    def blind(self, contacts: Mapping[SourceName, Contact]) -> list[str]:
        """Why what was decided may no longer be right; changes by time alone, so ask again and again."""
        withheld = self.applied.lease_withheld
        problems = [
            problem(source, found, at_once=bool(withheld) or source not in self.synced)
            for source, found in contacts.items()
        ]
        return [each for each in (withheld, *problems) if each]

    def unhealthy(self, silence_seconds: float) -> list[str]:
        """`silence_seconds`: since the supervisor reported last."""
        stuck = [f"{actor.name} is stuck" for actor in self.actors if actor.state == "stuck"]
        if silence_seconds > SILENCE_SECONDS:
            stuck.append(f"the supervisor has been silent for {silence_seconds:.0f} s")
        return stuck


def policies_document(conditions: Mapping[PolicyKey, PolicyCondition]) -> list[dict[str, object]]:
    return [
        {
            "name": condition.key.name,
            "service_id": condition.policy_id,
            "state": condition.state.value,
            "reason": condition.reason,
            "message": condition.message,
            "frontends": [str(Endpoint(f.address, f.port)) for f in condition.frontends],
            "backends": [str(backend) for backend in condition.backends],
        }
        for _, condition in sorted(conditions.items())
    ]


def actors_document(actors: Iterable[ActorReport]) -> list[dict[str, object]]:
    return [
        {"name": actor.name, "state": actor.state, "restarts": actor.restarts, "mailbox": actor.mailbox}
        for actor in actors
    ]
