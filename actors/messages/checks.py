"""Health checks of backend Pods: ConflictResolver <-> HealthChecker, and their counts for the metrics (P19)."""

from __future__ import annotations

from dataclasses import dataclass

from actors.framework.messages import Message
from config.domain.addresses import Address
from config.domain.checks import HealthCheck
from config.domain.ids import NamespacedName, PolicyKey


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedPod:
    """A Pod that is usable, unless its check says otherwise."""

    key: NamespacedName
    uid: str
    address: Address
    """The Pod's first IP of a frontend's address family."""
    why_out_of_use: str
    """What the check found, as far as ConflictResolver knows; "" for a Pod that is in use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChecks:
    """The Pods of one policy that are to be checked, and how."""

    key: PolicyKey
    check: HealthCheck | None = None
    """None: no Pod is checked, and `pods` is empty."""
    pods: tuple[CheckedPod, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChecksSelected(Message):
    """ConflictResolver -> HealthChecker: policies whose checks changed; all that have a check when `complete`.

    HealthChecker continues the checks that it runs already. A check that is new to it begins with what ConflictResolver
    knows about the Pod, so that a restart of HealthChecker changes nothing. If ConflictResolver has another opinion of
    a Pod that is being checked, HealthChecker sends its finding again, so that a restart of ConflictResolver changes
    nothing either.
    """

    complete: bool
    policies: tuple[PolicyChecks, ...] = ()
    removed: tuple[PolicyKey, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthChanged(Message):
    """HealthChecker's checking thread -> HealthChecker -> ConflictResolver: a Pod went out of use or came back."""

    policy: PolicyKey
    check: HealthCheck
    """The check that found it, which may no longer be the policy's."""
    pod: NamespacedName
    uid: str
    why_out_of_use: str
    """What the check found; "" for a Pod that is back in use."""
    received_at: float
    """time.monotonic() when the check that decided it ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckCount:
    policy: PolicyKey
    successes: int
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthChecksCounted(Message):
    """HealthChecker's checking thread -> HealthChecker -> MetricsExporter, at most once a second: the checks that ended
    since the last message. Repeating it would count them twice."""

    counts: tuple[CheckCount, ...]
