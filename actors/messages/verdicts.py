"""What there is to say of policies in the whole cluster: the controller's messages, to StatusWriter and from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from actors.framework.messages import Message
from config.domain.ids import PolicyKey
from k8s.objects.model import PolicyStatus
from k8s.status.writes import Write, WriteAnswer


class Acceptance(StrEnum):
    """Reasons of the condition `Accepted` in a policy's status; it holds with the first alone."""

    ACCEPTED = "Accepted"
    CONFLICT = "Conflict"
    INVALID = "Invalid"
    DISABLED = "Disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVerdict:
    """What there is to say of one policy in the whole cluster."""

    key: PolicyKey
    uid: str
    generation: int
    """The one that was judged."""
    reason: Acceptance
    message: str
    """One sentence."""
    frontend: str
    """What the policy matches: `namespace/name` of a Service, or an IP; "" for one that can't be read."""
    frontends: tuple[str, ...]
    nodes_ready: int
    nodes_selected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyVerdicts(Message):
    """ConflictResolver -> StatusWriter: verdicts that changed, and policies that are gone; all when `complete`."""

    complete: bool
    verdicts: tuple[PolicyVerdict, ...] = ()
    removed: tuple[PolicyKey, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyStatusSeen(Message):
    """PolicyWatcher -> StatusWriter: what the API holds of a policy, told before the policy itself."""

    key: PolicyKey
    uid: str
    status: PolicyStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyStatusGone(Message):
    """PolicyWatcher -> StatusWriter: the API holds no such policy, or no longer."""

    key: PolicyKey


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteEnded(Message):
    """StatusWriter's writing thread -> StatusWriter, and from there -> MetricsExporter."""

    write: Write
    answer: WriteAnswer
