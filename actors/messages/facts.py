"""What the sources told: PolicyWatcher, ServiceWatcher and EndpointWatcher -> ConflictResolver."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from actors.framework.messages import Message
from config.domain.ids import NamespacedName, PolicyKey
from k8s.objects.model import Node, Pod, Policy, Service
from k8s.sources.source import SourceEvent


class SourceName(StrEnum):
    """The three streams of facts; also the `source` label of metrics."""

    POLICIES = "policies"
    SERVICES = "services"
    ENDPOINTS = "endpoints"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyUpserted(Message):
    """A policy of either kind was seen, valid or not."""

    policy: Policy
    listing: int
    received_at: float
    """time.monotonic() when the event reached the agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRemoved(Message):
    key: PolicyKey
    received_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceUpserted(Message):
    service: Service
    listing: int
    received_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRemoved(Message):
    key: NamespacedName
    received_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PodUpserted(Message):
    """A Pod of this node; in the controller, one that a policy selects."""

    pod: Pod
    listing: int
    received_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRemoved(Message):
    key: NamespacedName
    received_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeUpserted(Message):
    """This agent's own Node; in the controller, any."""

    node: Node
    listing: int
    received_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRemoved(Message):
    name: str
    received_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSynced(Message):
    """Ends a first listing and every new one: what this source reported only under an older one is gone.

    To ConflictResolver, StatusReporter and MetricsExporter. `revision` is, for SERVICES and ENDPOINTS, the revision of
    the newest `WatchServices` or `WatchPods` that the listing covers.
    """

    source: SourceName
    listing: int
    revision: int = 0
    as_of: float = 0.0
    """time.monotonic() at which the oldest part of the listing was asked of where it comes from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDelivered(Message):
    """A watcher's reader thread -> that watcher."""

    event: SourceEvent
