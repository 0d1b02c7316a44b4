"""The controller's verdicts on policies, and how they reach the API server: the messages to and from StatusWriter."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from actors.framework.messages import Message
from config.domain.ids import PolicyKey
from k8s.objects.model import PolicyStatus
from k8s.status.write_requests import Write, WriteAnswer


class Acceptance(StrEnum):
    """Reasons of the condition `Accepted` in a policy's status. The condition is True only with ACCEPTED."""

    ACCEPTED = "Accepted"
    CONFLICT = "Conflict"
    INVALID = "Invalid"
    DISABLED = "Disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVerdict:
    """What the controller says about one policy, for the whole cluster."""

    key: PolicyKey
    uid: str
    generation: int
    """metadata.generation of the object that the verdict is about."""
    reason: Acceptance
    message: str
    """One sentence."""
    frontend: str
    """What the policy matches: `namespace/name` of a Service, or an IP; "" for a policy that cannot be parsed."""
    frontends: tuple[str, ...]
    nodes_ready: int
    """Number of the selected Nodes that have a usable backend."""
    nodes_selected: int
    """Number of Nodes that the policy selects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyVerdicts(Message):
    """ConflictResolver -> StatusWriter: the verdicts that changed, or all of them when `complete`."""

    complete: bool
    verdicts: tuple[PolicyVerdict, ...] = ()
    removed: tuple[PolicyKey, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyStatusSeen(Message):
    """PolicyWatcher -> StatusWriter: the status that the API server has for a policy.

    It is sent before the policy itself goes to ConflictResolver.
    """

    key: PolicyKey
    uid: str
    status: PolicyStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyStatusGone(Message):
    """PolicyWatcher -> StatusWriter: the API server has no such policy."""

    key: PolicyKey


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteEnded(Message):
    """StatusWriter's writing thread -> StatusWriter -> MetricsExporter: a write to the API server has ended."""

    write: Write
    answer: WriteAnswer
