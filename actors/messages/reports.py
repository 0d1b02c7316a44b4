"""What people are told: everything that goes to StatusReporter and MetricsExporter."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from actors.framework.messages import Message
from actors.messages.facts import SourceName
from config.domain.addresses import Endpoint, Frontend
from config.domain.ids import PolicyKey
from k8s.api.trouble import Trouble


class PolicyState(StrEnum):
    ACTIVE = "Active"
    NO_BACKEND = "NoBackend"
    NO_FRONTEND = "NoFrontend"
    CONFLICT = "Conflict"
    INVALID = "Invalid"
    DISABLED = "Disabled"
    NODE_NOT_SELECTED = "NodeNotSelected"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyCondition:
    key: PolicyKey
    policy_id: int
    state: PolicyState
    reason: str
    """CamelCase word, as in Kubernetes conditions."""
    message: str
    """One sentence: what the user must know."""
    frontends: tuple[Frontend, ...] = ()
    backends: tuple[Endpoint, ...] = ()
    usable_pods: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoliciesResolved(Message):
    """ConflictResolver: conditions as decided; LocalRedirectPolicies only."""

    complete: bool
    conditions: tuple[PolicyCondition, ...] = ()
    removed: tuple[PolicyKey, ...] = ()
    conflicts: int = 0
    """Policies, of both kinds, that are out of force because an older one holds what they claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFault:
    """Why one policy is not, or not wholly, in the kernel."""

    key: PolicyKey
    failed: bool
    """True: out of force, state Failed. False: in force, `message` is a warning (a Pod's cgroup was not found)."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredStateApplied(Message):
    """MapWriter, after every write: all present faults, and what was taken to write it."""

    faults: tuple[WriteFault, ...]
    attached: bool
    """All hooks are attached."""
    seconds: float
    """Event received to kernel written; negative when no event led here."""
    lease_withheld: str = ""
    """Why the lease ran out and is not renewed yet, in one sentence; "" when it is renewed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QosWindowElapsed(Message):
    """QosTicker -> StatusReporter: policies that reached their limit in the window that ended."""

    limited: tuple[int, ...]
    """Service ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsServed(Message):
    """Whether the address of /metrics can be listened on: sent with each attempt, the last of which succeeds."""

    fault: str
    """Why not; "" when it is served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceHeard(Message):
    """A watcher -> StatusReporter, MetricsExporter: how its source stands (`Heard` of `k8s.sources`), when that changes
    and about each second in which something was heard; or a listing began, or a part was listed again (then
    `relist_reason` says why)."""

    source: SourceName
    heard_at: float | None
    trouble: Trouble | None = None
    relist_reason: str = ""
