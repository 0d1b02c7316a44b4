"""What a reporting actor has heard about this process: its policies, its sources and its actors. Pure."""

from __future__ import annotations

from collections.abc import Iterable
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
from actors.reporting.contact import Contact, contact_of
from config.domain.ids import PolicyKey


class ConditionChange(NamedTuple):
    key: PolicyKey
    former: PolicyCondition | None
    present: PolicyCondition | None


@dataclass(slots=True)
class AgentState:
    """Merges the messages that a reporting actor receives. The cost of a message depends on what it changes, and not on
    the number of policies."""

    applied: DesiredStateApplied = DesiredStateApplied(faults=(), attached=False, apply_seconds=None)
    actors: tuple[ActorReport, ...] = ()
    synced: set[SourceName] = field(default_factory=set)
    heard: dict[SourceName, SourceHeard] = field(default_factory=dict)
    """The newest SourceHeard of each source."""
    conflicts: int = 0
    resolved: bool = False
    """Whether ConflictResolver has sent its decisions."""
    _decided: dict[PolicyKey, PolicyCondition] = field(default_factory=dict)
    """The conditions as ConflictResolver decided them."""
    _faults: dict[PolicyKey, tuple[WriteFault, ...]] = field(default_factory=dict)
    _conditions: dict[PolicyKey, PolicyCondition] = field(default_factory=dict)
    """The decided conditions, with the faults of writing them added."""

    def conditions(self) -> dict[PolicyKey, PolicyCondition]:
        """Returns a copy. Any thread may call this, since the interpreter copies a dict in one step."""
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

    def contacts(self, now: float, *, has_server: bool) -> dict[SourceName, Contact]:
        """See `actors.reporting.contact.contact_of`."""
        return {source: contact_of(self.heard.get(source), now, has_server=has_server) for source in SourceName}
