"""The few fields of Kubernetes objects that the agent uses, as frozen values.

Sources reduce raw objects to these at once; nothing downstream sees a raw dict.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from config.domain.addresses import Address, Protocol
from config.domain.checks import HealthCheck
from config.domain.ids import NamespacedName, PolicyKey

DEFAULT_AFFINITY_SECONDS = 10800
"""Kubernetes' own default for `timeoutSeconds` of a Service's ClientIP affinity; an address frontend has it, too."""
MAX_AFFINITY_SECONDS = 86400
"""Kubernetes' own limit of it; ours for policies is the same."""


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
    """The Pods that a selector matches in one namespace, or in all namespaces where `namespace` is ""."""

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
    """The spec of a valid policy. Of a BalancingPolicy only `frontend` is read."""

    frontend: ServiceFrontend | AddressFrontend
    backend_selector: LabelSelector = LabelSelector()
    backend_ports: tuple[PortSpec, ...] = ()
    backend_namespace: str = ""
    """"" when the policy names none: rule P6 then decides."""
    health_check: HealthCheck | None = None
    enabled: bool = True
    node_selector: LabelSelector | None = None
    """None: all nodes."""
    qos_limit: int | None = None
    """None: the limit of the agent's configuration; 0: no limit."""
    redirect_from_host: bool = True
    shadow: bool = False
    """Mode Shadow: all calls are decided and counted, and none is redirected (P21)."""
    percentage: int = 100
    """Of clients that are redirected (P21), 1 to 100."""
    skip_redirect_from_backend: bool = True
    session_affinity: bool | None = None
    """None: the Service's, or off for an address."""
    affinity_seconds: int | None = None
    """None: the Service's, or DEFAULT_AFFINITY_SECONDS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyStatus:
    """The part of a LocalRedirectPolicy's `status` that the controller writes."""

    accepted: str = ""
    """Status of the condition Accepted: `True` or `False`; "" when there is no such condition."""
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
    """The object's resourceVersion as a number, so that the later of two states has the greater one; 0 if unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy object as a source delivered it, valid or not.

    `spec` is None exactly when `faults` is not empty.
    """

    key: PolicyKey
    uid: str = ""
    generation: int = 0
    """metadata.generation, which the API server increments at each change of the spec."""
    policy_id: int
    """1 to 2^32-1: from the annotation, else derived from the uid, else from the name."""
    policy_id_explicit: bool = False
    created_at: str = ""
    """creationTimestamp (RFC 3339 in UTC, so that strings sort by time); "" counts as oldest."""
    spec: PolicySpec | None
    faults: tuple[str, ...] = ()
    """One sentence each: which field, what is wrong, what is allowed."""
    unknown_fields: tuple[str, ...] = ()
    """One sentence for each field that we do not know, as in `faults`. They do not make the policy invalid."""
    status: PolicyStatus | None = None
    """Read only in the controller; None in an agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    key: NamespacedName
    cluster_ips: tuple[Address, ...] = ()
    """Empty for headless and ExternalName Services."""
    ports: tuple[PortSpec, ...] = ()
    """TCP and UDP ports only."""
    client_ip_affinity: bool = False
    affinity_seconds: int = DEFAULT_AFFINITY_SECONDS
    faults: tuple[str, ...] = ()
    """One sentence each: which field, what is wrong. A Service with a fault counts as one without addresses (P5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """In an agent, a Pod of its node; in the controller, a Pod of any node."""

    key: NamespacedName
    uid: str = ""
    node: str = ""
    """spec.nodeName; "" before it is scheduled."""
    config_hash: str = ""
    """Annotation kubernetes.io/config.hash, which names the cgroup directory of a static Pod in place of the uid."""
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
        """Rule P5, except for the address family, which depends on the frontend."""
        return self.ready and not self.terminating and not self.finished and bool(self.ips)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    name: str
    labels: frozenset[tuple[str, str]] = field(default_factory=frozenset)


KubeObject: TypeAlias = Policy | Service | Pod | Node
