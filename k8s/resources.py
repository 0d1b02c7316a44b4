"""Which collections of the API are listed and watched, and how their objects are reduced to ours. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from config.settings import RedirectSettings
from k8s.objects import KubeObject, LabelSelector, NamespacedName, PodQuery, PolicyKind
from k8s.pod import parse_node, parse_pod
from k8s.policy import API_VERSION, parse_policy
from k8s.service import read_service
from k8s.source import Wanted
from k8s.status import parse_policy_with_status

Reduce: TypeAlias = Callable[[dict[str, Any]], KubeObject]
"""Raises ObjectError."""

MOST_WATCHES = 20
"""Of single Services, or Pod queries; beyond that one watch for all of them costs the API server less."""

_PLURALS = {PolicyKind.LOCAL_REDIRECT: "localredirectpolicies", PolicyKind.BALANCING: "balancingpolicies"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One list and watch."""

    kind: str
    path: str
    field_selector: str = ""
    label_selector: str = ""
    metadata_only: bool = False
    """Objects come as PartialObjectMetadata: of a Node only labels are used, and its status changes all the time."""
    optional: bool = False
    """Its CRD may be absent, and may come later: then there are none."""
    with_status: bool = False
    """Of a policy its status is read, too."""
    from_cache: bool = False
    """Listed from the API server's own cache, in one piece, and not from etcd in pages. For what every agent lists:
    an API server before 1.32 that has to read etcd reads all Pods of the cluster to find those of one node. What is
    listed in pages (by the controller, or without a selector) reads no more than it returns, or is read by one
    process in the cluster."""

    @property
    def name(self) -> str:
        """As rights name it: `pods`, `localredirectpolicies.balancing.elf.io`."""
        parts = self.path.strip("/").split("/")
        return f"{parts[-1]}.{parts[1]}" if parts[0] == "apis" else parts[-1]

    @property
    def group_version(self) -> str:
        """`balancing.elf.io/v1beta1`; `v1` for the core."""
        parts = self.path.strip("/").split("/")
        return "/".join(parts[1:3]) if parts[0] == "apis" else parts[1]

    def __str__(self) -> str:
        selectors = [each for each in (self.field_selector, self.label_selector) if each]
        return f"{self.path} ({', '.join(selectors)})" if selectors else self.path


def policies(kind: PolicyKind, *, with_status: bool = False) -> Resource:
    path = policies_path(kind)
    optional = kind == PolicyKind.BALANCING
    return Resource(kind=str(kind), path=path, optional=optional, with_status=with_status, from_cache=not with_status)


def policies_path(kind: PolicyKind) -> str:
    return f"/apis/{API_VERSION}/{_PLURALS[kind]}"


def pods_of_node(name: str) -> Resource:
    return Resource(kind="Pod", path="/api/v1/pods", field_selector=f"spec.nodeName={name}", from_cache=True)


def node(name: str) -> Resource:
    selector = f"metadata.name={name}"
    return Resource(kind="Node", path="/api/v1/nodes", field_selector=selector, metadata_only=True, from_cache=True)


ALL_NODES = Resource(kind="Node", path="/api/v1/nodes", metadata_only=True)
ALL_SERVICES = Resource(kind="Service", path="/api/v1/services")
ALL_PODS = Resource(kind="Pod", path="/api/v1/pods")


def resources_for(wanted: frozenset[Wanted]) -> frozenset[Resource]:
    """One watch each, or, for each kind, one for all once there are more than MOST_WATCHES."""
    services = {each for each in wanted if isinstance(each, NamespacedName)}
    queries = {each for each in wanted if isinstance(each, PodQuery)}
    found = {_service(name) for name in services} if len(services) <= MOST_WATCHES else {ALL_SERVICES}
    found |= {_pods(query) for query in queries} if len(queries) <= MOST_WATCHES else {ALL_PODS}
    return frozenset(found)


def _service(name: NamespacedName) -> Resource:
    path = f"/api/v1/namespaces/{name.namespace}/services"
    return Resource(kind="Service", path=path, field_selector=f"metadata.name={name.name}", from_cache=True)


def _pods(query: PodQuery) -> Resource:
    path = f"/api/v1/namespaces/{query.namespace}/pods" if query.namespace else "/api/v1/pods"
    return Resource(kind="Pod", path=path, label_selector=selector_text(query.selector))


def selector_text(selector: LabelSelector) -> str:
    """As the API's `labelSelector` parameter wants it."""
    parts = [f"{key}={value}" for key, value in selector.match_labels]
    for requirement in selector.match_expressions:
        values = ",".join(sorted(requirement.values))
        match requirement.operator:
            case "In":
                parts.append(f"{requirement.key} in ({values})")
            case "NotIn":
                parts.append(f"{requirement.key} notin ({values})")
            case "Exists":
                parts.append(requirement.key)
            case _:
                parts.append(f"!{requirement.key}")
    return ",".join(parts)


def reducer(resource: Resource, redirect: RedirectSettings) -> Reduce:
    """List items come without kind and apiVersion."""
    match resource.kind:
        case "Pod":
            return parse_pod
        case "Node":
            return parse_node
        case "Service":
            return read_service
        case kind:
            parse = parse_policy_with_status if resource.with_status else parse_policy
            return lambda raw: parse({"apiVersion": API_VERSION, **raw, "kind": kind}, redirect)
