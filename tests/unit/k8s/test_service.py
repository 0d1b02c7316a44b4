"""Services: cluster IPs, ports and affinity (P1, P13)."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from config.domain.addresses import Protocol
from config.domain.ids import NamespacedName
from k8s.objects.metadata import ObjectError
from k8s.objects.model import PortSpec, Service
from k8s.objects.service import parse_service


def parse(**spec: Any) -> Service:
    return parse_service({"metadata": {"name": "s", "namespace": "n"}, "spec": spec})


@pytest.mark.parametrize(
    ("spec", "addresses"),
    [
        ({"clusterIP": "10.0.0.1"}, ["10.0.0.1"]),
        ({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"]}, ["10.0.0.1", "fd00::1"]),
        ({"clusterIP": "None", "clusterIPs": ["None"]}, []),
        ({"clusterIP": ""}, []),
        ({}, []),
        ({"type": "ExternalName", "clusterIP": "10.0.0.1"}, []),
        ({"type": "NodePort", "clusterIP": "10.0.0.1", "externalIPs": ["1.2.3.4"]}, ["10.0.0.1"]),
    ],
)
def test_p1_only_cluster_ips_are_addresses(spec: dict[str, Any], addresses: list[str]) -> None:
    assert list(parse(**spec).cluster_ips) == [ip_address(text) for text in addresses]


def test_p1_ports_of_other_protocols_are_dropped() -> None:
    ports = [
        {"name": "a", "port": 53, "protocol": "UDP"},
        {"name": "b", "port": 54, "protocol": "SCTP"},
        {"port": 80, "targetPort": "http", "nodePort": 30000},
    ]
    assert parse(ports=ports).ports == (
        PortSpec(port=53, protocol=Protocol.UDP, name="a"),
        PortSpec(port=80, protocol=Protocol.TCP),
    )


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, (False, 10800)),
        ({"sessionAffinity": "None"}, (False, 10800)),
        ({"sessionAffinity": "ClientIP"}, (True, 10800)),
        ({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 9}}}, (True, 9)),
    ],
)
def test_p13_session_affinity_and_its_timeout_are_read(spec: dict[str, Any], expected: tuple[bool, int]) -> None:
    service = parse(**spec)
    assert (service.client_ip_affinity, service.affinity_seconds) == expected


def test_a_service_without_a_namespace_is_in_default() -> None:
    assert parse_service({"metadata": {"name": "s"}, "spec": {}}).key == NamespacedName("default", "s")


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (None, "Service/(no name): object: null is wrong; it must be a mapping"),
        ({"spec": {}}, "Service/(no name): metadata: is missing"),
        ({"metadata": {"name": "s"}}, "Service/s: spec: is missing"),
        ({"metadata": {"name": "s"}, "spec": {"clusterIP": "x"}}, "Service/s: spec.clusterIP: 'x' is wrong"),
        (
            {"metadata": {"name": "s"}, "spec": {"ports": [{"port": "1"}]}},
            "Service/s: spec.ports[0].port: '1' is wrong",
        ),
        ({"metadata": {"name": "s", "namespace": 3}, "spec": {}}, "metadata.namespace: 3 is wrong"),
    ],
)
def test_an_unusable_service_is_refused_with_object_and_field(raw: object, says: str) -> None:
    with pytest.raises(ObjectError) as caught:
        parse_service(raw)
    assert says in str(caught.value)
