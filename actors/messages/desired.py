"""What the policies ask of the kernel: ConflictResolver -> MapWriter."""

from __future__ import annotations

from dataclasses import dataclass

from actors.framework.messages import Message
from config.domain.addresses import Address, Endpoint, Frontend
from config.domain.ids import NamespacedName, PolicyKey


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredFrontend:
    frontend: Frontend
    backends: tuple[Endpoint, ...]
    """The usable backends: at least one, sorted by `endpoint_order`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendPod:
    """A Pod whose own calls are not redirected (P12)."""

    key: NamespacedName
    uid: str
    config_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredPolicy:
    """What one existing policy asks of the kernel.

    A policy that is not in force (invalid, in conflict, disabled, or not for this node) has no frontends and no
    excluded Pods. Its counters stay, unless another policy had this `policy_id` before.
    """

    key: PolicyKey
    uid: str = ""
    """An object with the same name and another uid is another policy, and its counters start at zero."""
    policy_id: int
    in_force: bool
    limit: int = 0
    """Redirects in each second; 0 means no limit."""
    affinity_seconds: int = 0
    """0 means no session affinity."""
    redirect_from_host: bool = True
    shadow: bool = False
    """Decide and count all calls, and redirect none (P21)."""
    percentage: int = 100
    """Share of the clients that are redirected (P21): 1 to 100."""
    frontends: tuple[DesiredFrontend, ...] = ()
    excluded: tuple[BackendPod, ...] = ()
    """The selected Pods, ready or not; empty when skipRedirectFromBackend is false."""
    unusable: frozenset[tuple[Frontend, Endpoint]] = frozenset()
    """The frontends, each with the endpoint of a selected Pod that is not usable. The closer closes sockets that are
    still connected there (P20)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyDesiredState(Message):
    """ConflictResolver -> MapWriter, after every change: the policies that changed, or all of them when `complete`.

    It is sent only while all sources are synced. With `complete`, MapWriter removes every row that belongs to none of
    the policies in the message.
    """

    complete: bool
    upserted: tuple[DesiredPolicy, ...] = ()
    removed: tuple[PolicyKey, ...] = ()
    received_at: float
    """time.monotonic() at which the oldest event behind this change was received."""
    as_of: float = 0.0
    """See LeaseProbe.as_of."""
    pod_addresses: frozenset[Address] | None = None
    """The addresses of all Pods that are on this node; None when they have not changed. Never None when `complete`."""
