"""What the node itself knows about backend Pods: ConflictResolver <-> ContainerWatcher (P18)."""

from __future__ import annotations

from dataclasses import dataclass

from actors.framework.messages import Message
from config.domain.ids import NamespacedName, PolicyKey


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedPod:
    """A Pod of this node that a policy selects, and that is usable according to the API (P5)."""

    key: NamespacedName
    uid: str
    config_hash: str
    containers: frozenset[str]
    """Ids of the regular containers in the Pod's status."""
    has_runtime_class: bool
    """Whether a RuntimeClass is set. Then the containers may have no cgroups on the node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyBackends:
    """The Pods of one policy. There are none when it is not in force."""

    key: PolicyKey
    pods: tuple[SelectedPod, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendsSelected(Message):
    """ConflictResolver -> ContainerWatcher: the Pods of the policies that changed, or of all when `complete`."""

    complete: bool
    policies: tuple[PolicyBackends, ...] = ()
    removed: tuple[PolicyKey, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainersEnded(Message):
    """ContainerWatcher -> ConflictResolver: the containers of a Pod that have no process now.

    When each container has a process again, the message is sent with no containers, so that the Pod is used again.
    """

    pod: NamespacedName
    uid: str
    containers: frozenset[str]
    is_gone: bool
    """Whether the cgroup of the whole Pod existed before and has been removed."""
    received_at: float
    """time.monotonic() at which the kernel's event was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupChanged(Message):
    """ContainerWatcher's reader thread -> ContainerWatcher: a container's `cgroup.events` changed."""

    directory: str
    received_at: float
    """time.monotonic() at which the kernel's event was read."""
