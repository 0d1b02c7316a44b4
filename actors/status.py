"""What is known of the agent's state, and the answers of /status, /readyz and /healthz made from it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from actors.messages import (
    ActorReport,
    DesiredStateApplied,
    PoliciesResolved,
    PolicyCondition,
    PolicyState,
    SourceName,
)
from bpf.rows import Endpoint
from k8s.objects import PolicyKey

SILENCE_SECONDS = 10.0


@dataclass(slots=True)
class AgentState:
    """Merges what the reporting actor hears."""

    decided: dict[PolicyKey, PolicyCondition] = field(default_factory=dict)
    applied: DesiredStateApplied = DesiredStateApplied(faults=(), attached=False, seconds=-1)
    actors: tuple[ActorReport, ...] = ()
    synced: set[SourceName] = field(default_factory=set)
    conflicts: int = 0
    resolved: bool = False

    def resolve(self, message: PoliciesResolved) -> None:
        if message.complete:
            self.decided.clear()
        for key in message.removed:
            self.decided.pop(key, None)
        self.decided |= {condition.key: condition for condition in message.conditions}
        self.conflicts = message.conflicts
        self.resolved = True

    def conditions(self) -> dict[PolicyKey, PolicyCondition]:
        """As decided, with what the kernel said of it."""
        found = dict(self.decided)
        for fault in self.applied.faults:
            condition = found.get(fault.key)
            if condition is None:
                continue
            if fault.failed:
                change = replace(
                    condition, state=PolicyState.FAILED, reason="WriteFailed", message=fault.message, backends=()
                )
            else:
                change = replace(condition, message=f"{condition.message}; {fault.message}")
            found[fault.key] = change
        return found

    def unready(self, *, attaches: bool = True) -> list[str]:
        """What is missing; empty when the agent is ready. `attaches`: programs are ours to attach."""
        missing = [f"source {source} is not synced" for source in SourceName if source not in self.synced]
        if not self.resolved:
            missing.append("policies are not decided yet")
        if attaches and not self.applied.attached:
            missing.append("not all programs are attached")
        return missing

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
            "service_id": condition.service_id,
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
