"""A CiliumLocalRedirectPolicy (cilium.io/v2) as a LocalRedirectPolicy. Pure.

Cilium's fields are described at https://docs.cilium.io/en/stable/network/kubernetes/local-redirect-policy/.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from config.domain.ids import PolicyKind
from config.input.faults import Report
from config.input.fields import Fields
from config.settings import RedirectSettings
from k8s.commands.conversion import Conversion, given_name
from k8s.objects.documents import Document
from k8s.objects.metadata import check_name, read_metadata, read_namespace
from k8s.objects.model import AddressFrontend, LabelSelector, PortSpec, ServiceFrontend
from k8s.objects.policy import API_VERSION, read_frontend
from k8s.objects.ports import check_partners, read_ports
from k8s.objects.raw import Raw
from k8s.objects.selector import read_selector

KIND = "CiliumLocalRedirectPolicy"
_CILIUM = "cilium.io/v2"
_OF_KUBECTL = "kubectl.kubernetes.io/last-applied-configuration"


def convert_cilium_policy(document: Document, name: str, redirect: RedirectSettings) -> Conversion:
    """`name` is the name of the new policy. Faults name the fields of Cilium's policy."""
    report = Report()
    given = given_name(document)
    fields = Fields(document.raw, "", report)
    fields.text("apiVersion", _CILIUM.__eq__, _CILIUM, needed=True)
    metadata = read_metadata(fields)
    check_name(metadata)
    namespace = read_namespace(metadata)
    known = ("description", "redirectFrontend", "redirectBackend", "skipRedirectFromBackend")
    spec = fields.required("spec", known)
    matchers = spec.required("redirectFrontend", ("serviceMatcher", "addressMatcher")) if spec else None
    backend = spec.required("redirectBackend", ("localEndpointSelector", "toPorts")) if spec else None
    if spec is None or matchers is None or backend is None:
        return Conversion(given=given, faults=report.all_faults())
    read = read_frontend(matchers, redirect)
    selector = read_selector(backend, "localEndpointSelector", needed=True)
    backend_ports = _in_small_letters(read_ports(backend, needed=True, unique_ports=False))
    skip = spec.boolean("skipRedirectFromBackend", False)
    if read is None or report.faults:
        return Conversion(given=given, faults=report.all_faults())
    frontend, matcher = read
    frontend_ports = _in_small_letters(frontend.to_ports)
    if frontend_ports:
        check_partners(matcher, frontend_ports, backend, backend_ports)
    if report.faults:
        return Conversion(given=given, faults=report.all_faults())
    policy = {
        "apiVersion": API_VERSION,
        "kind": str(PolicyKind.LOCAL_REDIRECT),
        "metadata": {"name": name, **({"labels": metadata.get("labels")} if metadata.has("labels") else {})},
        "spec": {
            "frontend": _matcher(frontend, frontend_ports),
            "backend": {
                "namespace": namespace,
                "endpointSelector": _selector(selector),
                "toPorts": port_entries(backend_ports),
            },
            "config": {"skipRedirectFromBackend": skip},
        },
    }
    unknown = (f"{each}; it is left out" for each in report.unknown)
    remarks = (*_remarks(metadata, spec, frontend, namespace, name=name, skip=skip), *unknown)
    return Conversion(given=given, objects=(policy,), remarks=remarks)


def port_entries(ports: Iterable[PortSpec]) -> list[Raw]:
    return [
        {"port": each.port, "protocol": str(each.protocol), **({"name": each.name} if each.name else {})}
        for each in ports
    ]


def _in_small_letters(ports: tuple[PortSpec, ...]) -> tuple[PortSpec, ...]:
    """Cilium compares the names of ports without regard to case."""
    return tuple(replace(each, name=each.name.lower()) for each in ports)


def _matcher(frontend: ServiceFrontend | AddressFrontend, ports: tuple[PortSpec, ...]) -> Raw:
    to_ports = {"toPorts": port_entries(ports)} if ports else {}
    if isinstance(frontend, AddressFrontend):
        return {"addressMatcher": {"ip": str(frontend.ip), **to_ports}}
    service = frontend.service
    return {"serviceMatcher": {"serviceName": service.name, "namespace": service.namespace, **to_ports}}


def _selector(selector: LabelSelector) -> Raw:
    found: Raw = {}
    if selector.match_labels:
        found["matchLabels"] = dict(selector.match_labels)
    if selector.match_expressions:
        found["matchExpressions"] = [
            {"key": each.key, "operator": each.operator, **({"values": sorted(each.values)} if each.values else {})}
            for each in selector.match_expressions
        ]
    return found


def _remarks(
    metadata: Fields,
    spec: Fields,
    frontend: ServiceFrontend | AddressFrontend,
    namespace: str,
    *,
    name: str,
    skip: bool,
) -> Iterator[str]:
    if name != metadata.get("name"):
        yield f"metadata.name: the new name is {name}, since a policy of another namespace has the same name"
    yield (
        f"metadata.namespace: our policies belong to the whole cluster; spec.backend.namespace keeps the backends in "
        f"{namespace}"
    )
    if isinstance(frontend, ServiceFrontend) and frontend.service.namespace != namespace:
        yield (
            f"spec.redirectFrontend.serviceMatcher.namespace: {frontend.service.namespace} is not the policy's "
            "namespace, so Cilium does not redirect; the new policy does"
        )
    if not skip:
        yield (
            "spec.skipRedirectFromBackend: false is Cilium's default and is kept; our default, true, lets a backend "
            "reach the frontend the normal way. A cache that forwards to the Service it stands in for needs that"
        )
    if spec.has("description"):
        yield "spec.description: has no counterpart and is left out"
    annotations = metadata.mapping("annotations")
    if annotations and any(key != _OF_KUBECTL for key, _ in annotations.entries()):
        yield "metadata.annotations: are left out, since they are for other programs"
