"""What the other actors report about policies, the kernel and the sources: to StatusReporter and MetricsExporter."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from actors.framework.messages import Message
from actors.messages.facts import SourceName
from config.domain.addresses import Endpoint, Frontend
from config.domain.ids import PolicyKey
from k8s.api.trouble import Trouble

REPORTERS = ("StatusReporter", "MetricsExporter")
"""The actors that show operators what the others report."""


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
    """One CamelCase word, as in the conditions of Kubernetes objects."""
    message: str
    """One sentence that says what the user must know."""
    shadow: bool = False
    """The policy is in force in mode Shadow (P21)."""
    percentage: int = 100
    """Share of the clients that a policy in force redirects (P21): 1 to 100."""
    frontends: tuple[Frontend, ...] = ()
    """Those that are redirected while they have a backend; empty for a policy that is out of force."""
    named_frontends: tuple[Frontend, ...] = ()
    """All that the policy asks for, whatever its state and in both address families. Empty if the policy is invalid or
    its Service does not exist."""
    backends: tuple[Endpoint, ...] = ()
    usable_pods: int = 0
    unhealthy_pods: int = 0
    """Pods that are Ready and out of use, because a container of them ended or their check failed (P18, P19)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoliciesResolved(Message):
    """ConflictResolver -> StatusReporter, MetricsExporter: the conditions that changed, or all when `complete`.

    They describe LocalRedirectPolicies only.
    """

    complete: bool
    conditions: tuple[PolicyCondition, ...] = ()
    removed: tuple[PolicyKey, ...] = ()
    conflicts: int = 0
    """Number of policies, of both kinds, that lost a conflict with an older policy (P8)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFault:
    """Why one policy is missing from the kernel, or is there only in part."""

    key: PolicyKey
    failed: bool
    """True: the policy is not in force, and its state is Failed. False: it is in force, and `message` is a warning,
    such as that a Pod's cgroup was not found."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredStateApplied(Message):
    """MapWriter -> StatusReporter, MetricsExporter, after every write: what is in the kernel now, and what is not."""

    faults: tuple[WriteFault, ...]
    """All faults that there are now."""
    attached: bool
    """Whether all hooks are attached."""
    apply_seconds: float | None
    """From the event that caused the write to the last row written; None when no event caused it."""
    lease_withheld: str = ""
    """One sentence that says why the lease ran out and is not renewed yet; "" while it is renewed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QosWindowElapsed(Message):
    """QosTicker -> StatusReporter: the policies that reached their limit in the present or in the previous second."""

    limited: tuple[int, ...]
    """Policy ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsServed(Message):
    """MetricsExporter -> StatusReporter, after each attempt to listen on the address of /metrics."""

    fault: str
    """Why the attempt failed; "" when /metrics is served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceHeard(Message):
    """A watcher -> StatusReporter, MetricsExporter: the contact that its source has with its server or directory.

    It is sent when that contact changes, about once in each second in which something was heard, and when a listing
    begins. The fields are those of `k8s.sources.source.Heard`.
    """

    source: SourceName
    heard_at: float | None
    trouble: Trouble | None = None
    relist_reason: str = ""
    """Why a listing began, or why a part of the source was listed again; "" when neither happened."""
