"""Whether backend Pods serve, beyond what the API says: ConflictResolver <-> ContainerWatcher (P18)."""

from __future__ import annotations

from dataclasses import dataclass

from actors.framework.messages import Message
from config.domain.addresses import Address
from config.domain.ids import NamespacedName, PolicyKey


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedPod:
    """A Pod that a policy selects on this node, and that is usable as far as the API says (P5)."""

    key: NamespacedName
    uid: str
    config_hash: str
    containers: frozenset[str]
    """Ids of the regular containers that the Pod's status names."""
    has_runtime_class: bool
    """The container runtime may keep the containers out of the node's cgroups."""
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyBackends:
    """The Pods of one policy; none when it is out of force."""

    key: PolicyKey
    pods: tuple[SelectedPod, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendsSelected(Message):
    """ConflictResolver -> ContainerWatcher: policies whose Pods changed; all policies when `complete`."""

    complete: bool
    policies: tuple[PolicyBackends, ...] = ()
    removed: tuple[PolicyKey, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainersEnded(Message):
    """ContainerWatcher -> ConflictResolver: containers of a Pod in which no process is left, as of now.

    Also when there are none, so that a Pod that was out of use comes back.
    """

    pod: NamespacedName
    uid: str
    containers: frozenset[str]
    is_gone: bool
    """The whole Pod's cgroup was there, and is removed."""
    received_at: float
    """time.monotonic() when the kernel's event was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupChanged(Message):
    """ContainerWatcher's reader thread -> ContainerWatcher: a container's `cgroup.events` changed."""

    directory: str
    received_at: float
    """time.monotonic() when the kernel's event was read."""
