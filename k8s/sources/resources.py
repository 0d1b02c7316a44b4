"""Which collections of the API are listed and watched, and how their objects are reduced to our values. Pure."""

from __future__ import annotations

from config.domain.ids import NamespacedName, PolicyKind
from config.settings import RedirectSettings
from k8s.api.resource import Reduce, Resource, policies_path
from k8s.objects.model import PodQuery
from k8s.objects.node import parse_node
from k8s.objects.pod import parse_pod
from k8s.objects.policy import API_VERSION, parse_policy
from k8s.objects.policy_status import parse_policy_with_status
from k8s.objects.selector import selector_text
from k8s.objects.service import read_service
from k8s.sources.source import Topic

MAX_WATCHES = 20
"""Watches of single Services, or of Pod queries. Beyond this number, one watch of all Services (or Pods) costs the API
server less."""


def policies(kind: PolicyKind, *, with_status: bool = False) -> Resource:
    path = policies_path(kind)
    optional = kind == PolicyKind.BALANCING
    return Resource(kind=str(kind), path=path, optional=optional, with_status=with_status, from_cache=not with_status)


def pods_of_node(name: str) -> Resource:
    return Resource(kind="Pod", path="/api/v1/pods", field_selector=f"spec.nodeName={name}", from_cache=True)


def node(name: str) -> Resource:
    selector = f"metadata.name={name}"
    return Resource(kind="Node", path="/api/v1/nodes", field_selector=selector, metadata_only=True, from_cache=True)


ALL_NODES = Resource(kind="Node", path="/api/v1/nodes", metadata_only=True)
ALL_SERVICES = Resource(kind="Service", path="/api/v1/services")
ALL_PODS = Resource(kind="Pod", path="/api/v1/pods")


def resources_for(topics: frozenset[Topic]) -> frozenset[Resource]:
    """One watch for each; for a kind with more than MAX_WATCHES, one watch for all its objects."""
    services = {each for each in topics if isinstance(each, NamespacedName)}
    queries = {each for each in topics if isinstance(each, PodQuery)}
    found = {_service(name) for name in services} if len(services) <= MAX_WATCHES else {ALL_SERVICES}
    found |= {_pods(query) for query in queries} if len(queries) <= MAX_WATCHES else {ALL_PODS}
    return frozenset(found)


def _service(name: NamespacedName) -> Resource:
    path = f"/api/v1/namespaces/{name.namespace}/services"
    return Resource(kind="Service", path=path, field_selector=f"metadata.name={name.name}", from_cache=True)


def _pods(query: PodQuery) -> Resource:
    path = f"/api/v1/namespaces/{query.namespace}/pods" if query.namespace else "/api/v1/pods"
    return Resource(kind="Pod", path=path, label_selector=selector_text(query.selector))


def reducer(resource: Resource, redirect: RedirectSettings) -> Reduce:
    """How a raw object of this collection is reduced. Items of a list come without kind and apiVersion."""
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
