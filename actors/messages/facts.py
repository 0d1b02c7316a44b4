"""Facts from the sources: PolicyWatcher, ServiceWatcher and EndpointWatcher -> ConflictResolver. Facts about Pods also
go to DecisionRecorder, if the agent has one."""

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
    """Number of the listing under which the watcher reports it; see SourceSynced."""
    received_at: float
    """time.monotonic() at which the event reached this process."""


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
    """The Node of this agent; in the controller, any Node."""

    node: Node
    listing: int
    received_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRemoved(Message):
    name: str
    received_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSynced(Message):
    """A watcher -> ConflictResolver, StatusReporter, and EndpointWatcher -> DecisionRecorder: listing number `listing`
    is complete.

    Every object that still exists has been reported under this number, so an object that was reported only under an
    older number no longer exists.
    """

    source: SourceName
    listing: int
    revision: int = 0
    """For SERVICES and ENDPOINTS: revision of the newest WatchServices or WatchPods that the listing covers."""
    as_of: float = 0.0
    """time.monotonic() at which the oldest part of the listing was requested from the server or read from disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDelivered(Message):
    """A watcher's source thread -> that watcher: one event of its source."""

    event: SourceEvent
