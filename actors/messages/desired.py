"""What the policies ask of the kernel: ConflictResolver -> MapWriter."""

from __future__ import annotations

from dataclasses import dataclass

from actors.framework.messages import Message
from config.domain.addresses import Endpoint, Frontend
from config.domain.ids import NamespacedName, PolicyKey


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredFrontend:
    frontend: Frontend
    backends: tuple[Endpoint, ...]
    """Usable ones, not empty, sorted by `endpoint_order`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendPod:
    """A Pod whose processes are not redirected (P12)."""

    key: NamespacedName
    uid: str
    config_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredPolicy:
    """What one existing policy asks of the kernel.

    Out of force (invalid, in conflict, disabled, not for this node): `in_force` False, no frontends, no pods; its
    counters stay, unless `policy_id` was another policy's.
    """

    key: PolicyKey
    uid: str = ""
    """Of the object: one of the same name and another uid is another policy, whose counters begin at zero."""
    policy_id: int
    in_force: bool
    limit: int = 0
    affinity_seconds: int = 0
    redirect_from_host: bool = True
    frontends: tuple[DesiredFrontend, ...] = ()
    excluded: tuple[BackendPod, ...] = ()
    """Selected Pods, ready or not; empty when skipRedirectFromBackend is false."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyDesiredState(Message):
    """Changed policies, after every change; all of them when `complete`.

    With `complete`, what is installed and not named here goes. Sent only when all sources are synced.
    """

    complete: bool
    upserted: tuple[DesiredPolicy, ...] = ()
    removed: tuple[PolicyKey, ...] = ()
    received_at: float
    """Of the oldest event that led here."""
    as_of: float = 0.0
    """As of LeaseProbe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResyncDesiredState(Message):
    """MapWriter, StatusWriter, StatusReporter or MetricsExporter -> ConflictResolver, at their start: send everything
    again.

    The answer is a complete ApplyDesiredState (in the controller, ApplyVerdicts) and a complete PoliciesResolved, once
    all sources are synced.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Flush(Message):
    """ConflictResolver -> itself: all facts that waited are in the indexes now; decide once."""
