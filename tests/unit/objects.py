"""Objects that the tests of decisions share: a DNS Service, Pods of a cache, and policies for them."""

from __future__ import annotations

from ipaddress import ip_address

from config.domain.addresses import Protocol
from config.domain.ids import NamespacedName, PolicyKey, PolicyKind
from k8s.objects.identity import POLICY_KINDS
from k8s.objects.model import (
    AddressFrontend,
    LabelSelector,
    Pod,
    Policy,
    PolicySpec,
    PortSpec,
    Service,
    ServiceFrontend,
)

ALL_KINDS = POLICY_KINDS | {"Service", "Pod", "Node"}
"""The kinds that a directory of manifests may hold."""
UDP, TCP = Protocol.UDP, Protocol.TCP
NAME = NamespacedName("kube-system", "dns")
SELECTOR = LabelSelector(match_labels=(("app", "cache"),))
KEY = PolicyKey(PolicyKind.LOCAL_REDIRECT, "p")


def port(number: int, protocol: Protocol = UDP, name: str = "") -> PortSpec:
    return PortSpec(port=number, protocol=protocol, name=name)


DNS_PORTS = (port(53, UDP, "dns"), port(53, TCP, "dns-tcp"))
CACHE_PORTS = (port(5353, UDP, "dns"), port(5354, TCP, "dns-tcp"))
SERVICE = Service(key=NAME, cluster_ips=(ip_address("10.96.0.10"), ip_address("fd00::a")), ports=DNS_PORTS)


def service_spec(*to_ports: PortSpec, backend: tuple[PortSpec, ...] = CACHE_PORTS) -> PolicySpec:
    return PolicySpec(
        frontend=ServiceFrontend(service=NAME, to_ports=to_ports), backend_selector=SELECTOR, backend_ports=backend
    )


def address_spec(
    ip: str = "169.254.0.90",
    to_ports: tuple[PortSpec, ...] = (port(53),),
    backend: tuple[PortSpec, ...] = (port(5353),),
) -> PolicySpec:
    return PolicySpec(
        frontend=AddressFrontend(ip=ip_address(ip), to_ports=to_ports), backend_selector=SELECTOR, backend_ports=backend
    )


def policy(
    spec: PolicySpec | None,
    *,
    name: str = "p",
    kind: PolicyKind = PolicyKind.LOCAL_REDIRECT,
    policy_id: int = 7,
    created: str = "",
    faults: tuple[str, ...] = (),
) -> Policy:
    return Policy(key=PolicyKey(kind, name), policy_id=policy_id, created_at=created, spec=spec, faults=faults)


def pod(
    name: str = "cache-1",
    *ips: str,
    ready: bool = True,
    terminating: bool = False,
    finished: bool = False,
    host_network: bool = False,
    app: str = "cache",
    namespace: str = "kube-system",
) -> Pod:
    return Pod(
        key=NamespacedName(namespace, name),
        uid=f"uid-{name}",
        labels=frozenset({("app", app)}),
        ips=tuple(ip_address(ip) for ip in ips or ("10.1.0.1", "fd01::1")),
        ready=ready,
        terminating=terminating,
        finished=finished,
        host_network=host_network,
    )
