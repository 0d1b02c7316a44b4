"""The few fields of Kubernetes objects that the agent uses, as frozen values.

Sources reduce raw objects to these at once; nothing downstream sees a raw dict.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from config.domain.addresses import Address, Protocol
from config.domain.ids import NamespacedName, PolicyKey


@dataclass(frozen=True, slots=True, kw_only=True)
class PortSpec:
    """One entry of a `toPorts` list or of a Service's ports; `name` is "" when absent."""

    port: int
    protocol: Protocol
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One of a selector's `matchExpressions`; operator is In, NotIn, Exists or DoesNotExist."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSelector:
    """Kubernetes' label selector; every part must hold. See `k8s.objects.selector.matches`."""

    match_labels: tuple[tuple[str, str], ...] = ()
    match_expressions: tuple[Requirement, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PodQuery:
    """The Pods of one namespace ("": of all) that a selector matches."""

    namespace: str
    selector: LabelSelector


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFrontend:
    service: NamespacedName
    to_ports: tuple[PortSpec, ...] = ()
    """Empty: every port of the Service that has a partner (P1, P3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressFrontend:
    ip: Address
    to_ports: tuple[PortSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySpec:
    """A valid policy. Of a BalancingPolicy only `frontend` means anything."""

    frontend: ServiceFrontend | AddressFrontend
    backend_selector: LabelSelector = LabelSelector()
    backend_ports: tuple[PortSpec, ...] = ()
    backend_namespace: str = ""
    """"": see rule P6."""
    enabled: bool = True
    node_selector: LabelSelector | None = None
    """None: all nodes."""
    qos_limit: int | None = None
    """None: the agent's; 0: no limit."""
    redirect_from_host: bool = True
    skip_redirect_from_backend: bool = True
    session_affinity: bool | None = None
    """None: the Service's, or off for an address."""
    affinity_seconds: int | None = None
    """None: the Service's, or 10800."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyStatus:
    """What `status` of a LocalRedirectPolicy holds, of that which the controller writes."""

    accepted: str = ""
    """Condition Accepted: `True` or `False`; "" when there is none."""
    reason: str = ""
    message: str = ""
    observed_generation: int = 0
    transitioned_at: str = ""
    """lastTransitionTime: when `accepted` changed."""
    frontend: str = ""
    frontends: tuple[str, ...] = ()
    nodes_ready: int | None = None
    nodes_selected: int | None = None
    nodes: str = ""
    version: int = field(default=0, compare=False)
    """Of the object that holds it: of two states the greater is the later one; 0 where that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy object as a source delivered it, valid or not.

    `spec` is None exactly when `faults` is not empty.
    """

    key: PolicyKey
    uid: str = ""
    generation: int = 0
    """metadata.generation: the API server counts changes of the spec."""
    policy_id: int
    """1 to 2^32-1: the annotation's, else derived from the uid, else from the name."""
    policy_id_explicit: bool = False
    created: str = ""
    """creationTimestamp (RFC 3339, UTC, so that strings sort by time); "" counts as oldest."""
    spec: PolicySpec | None
    faults: tuple[str, ...] = ()
    """One sentence each: field, what is wrong, what is allowed."""
    unknown_fields: tuple[str, ...] = ()
    """Paths of fields that we do not know; no fault."""
    status: PolicyStatus | None = None
    """Read for the controller alone: None in an agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    key: NamespacedName
    cluster_ips: tuple[Address, ...] = ()
    """Empty for headless and ExternalName Services."""
    ports: tuple[PortSpec, ...] = ()
    """TCP and UDP ports only."""
    client_ip_affinity: bool = False
    affinity_seconds: int = 10800
    faults: tuple[str, ...] = ()
    """One sentence each: field, what is wrong. With any, the Service counts as one without addresses (P5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A Pod of this node; in the controller, of any."""

    key: NamespacedName
    uid: str = ""
    node: str = ""
    """spec.nodeName; "" before it is scheduled."""
    config_hash: str = ""
    """Annotation kubernetes.io/config.hash: a static Pod's cgroup directory carries it instead of the uid."""
    labels: frozenset[tuple[str, str]] = frozenset()
    ips: tuple[Address, ...] = ()
    ready: bool = False
    terminating: bool = False
    """deletionTimestamp is set."""
    finished: bool = False
    """phase is Succeeded or Failed."""
    host_network: bool = False
    containers: frozenset[str] = frozenset()
    """Ids of the regular containers that status names, without the runtime's name."""
    runtime_class: str = ""
    """spec.runtimeClassName."""

    @property
    def usable(self) -> bool:
        """Rule P5, but for the address family."""
        return self.ready and not self.terminating and not self.finished and bool(self.ips)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    name: str
    labels: frozenset[tuple[str, str]] = field(default_factory=frozenset)


KubeObject: TypeAlias = Policy | Service | Pod | Node
