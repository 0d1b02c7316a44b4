"""Policies, Services and Pods as sources deliver them, with what a test does not care for filled in."""

from __future__ import annotations

from ipaddress import ip_address

from k8s.objects import (
    AddressFrontend,
    LabelSelector,
    NamespacedName,
    Pod,
    Policy,
    PolicyKey,
    PolicyKind,
    PolicySpec,
    PortSpec,
    Protocol,
    Service,
    ServiceFrontend,
)

VIP = "169.254.0.90"
CLUSTER_IP = "10.96.0.10"
CLUSTER_IP6 = "fd96::10"
SERVICE = NamespacedName("kube-system", "kube-dns")


def port(number: int, name: str = "", protocol: str = "UDP") -> PortSpec:
    return PortSpec(port=number, protocol=Protocol(protocol), name=name)


def address(*ports: PortSpec, ip: str = VIP) -> AddressFrontend:
    return AddressFrontend(ip=ip_address(ip), to_ports=ports or (port(53),))


def of_service(*ports: PortSpec) -> ServiceFrontend:
    return ServiceFrontend(service=SERVICE, to_ports=ports)


def policy(
    name: str = "dns",
    frontend: AddressFrontend | ServiceFrontend | None = None,
    *,
    kind: PolicyKind = PolicyKind.LOCAL_REDIRECT,
    service_id: int = 0,
    created: str = "",
    faults: tuple[str, ...] = (),
    **spec: object,
) -> Policy:
    values: dict[str, object] = {
        "frontend": frontend or address(),
        "backend_selector": LabelSelector(match_labels=(("app", "dns"),)),
        "backend_ports": (port(5353),),
    }
    made = None if faults else PolicySpec(**values | spec)  # type: ignore[arg-type]  # a test names real fields
    number = service_id or sum(name.encode()) + 1
    return Policy(key=PolicyKey(kind, name), service_id=number, created=created, spec=made, faults=faults)


def service(*ports: PortSpec, ips: tuple[str, ...] = (CLUSTER_IP,), affinity: bool = False) -> Service:
    cluster_ips = tuple(map(ip_address, ips))
    return Service(key=SERVICE, cluster_ips=cluster_ips, ports=ports or (port(53),), client_ip_affinity=affinity)


def pod(name: str = "cache", *, namespace: str = "kube-system", **values: object) -> Pod:
    defaults: dict[str, object] = {
        "uid": f"uid-{name}",
        "labels": frozenset({("app", "dns")}),
        "ips": (ip_address("10.0.0.5"), ip_address("fd00::5")),
        "ready": True,
    }
    return Pod(key=NamespacedName(namespace, name), **defaults | values)  # type: ignore[arg-type]  # as above
