"""A policy whose frontend is the API server's address has a message that says so (P17): it redirects everybody but the
agent."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from actors.controller.cluster_decision import ClusterDecision
from actors.resolving.agent_decision import AgentDecision
from actors.resolving.decision import Decision
from actors.resolving.frontends import Servers
from config.domain.ids import NamespacedName
from config.settings import RedirectSettings
from k8s.api.client import Api
from k8s.objects.model import Node, Pod, PolicySpec, PortSpec, Service, ServiceFrontend
from tests.kubeconfig import write_kubeconfig
from tests.unit.actors.policy_facts import policy_facts
from tests.unit.objects import NAME, SELECTOR, TCP, UDP, address_spec, pod, policy, port

KUBERNETES = NamespacedName("default", "kubernetes")
VIP = "192.0.2.7"
SERVERS = frozenset({(ip_address(VIP), 6443)})


def of_service(name: NamespacedName) -> PolicySpec:
    ports = (port(443, TCP),)
    return PolicySpec(frontend=ServiceFrontend(service=name), backend_selector=SELECTOR, backend_ports=ports)


def of_address(ip: str, number: int, protocol: object = TCP) -> PolicySpec:
    ports: tuple[PortSpec, ...] = (port(number, TCP if protocol == TCP else UDP),)
    return address_spec(ip, ports, ports)


CASES: dict[str, tuple[PolicySpec, Servers | None, str]] = {
    "the Service, of both families": (
        of_service(KUBERNETES),
        frozenset(),
        "10.96.0.1:443, [fd96::1]:443 are addresses",
    ),
    "another Service": (of_service(NAME), SERVERS, ""),
    "the address of the client": (of_address(VIP, 6443), SERVERS, f"{VIP}:6443 is an address"),
    "another port": (of_address(VIP, 443), SERVERS, ""),
    "another protocol": (of_address(VIP, 6443, UDP), SERVERS, ""),
    "another address": (of_address("192.0.2.8", 6443), SERVERS, ""),
    "no API server in use": (of_service(KUBERNETES), None, ""),
}
DECISIONS = {"the agent": AgentDecision, "the controller": ClusterDecision}


@pytest.mark.parametrize("pods", [(pod(),), ()], ids=["with a backend", "without"])
@pytest.mark.parametrize("who", DECISIONS)
@pytest.mark.parametrize("case", CASES)
def test_the_message_says_that_a_frontend_is_an_address_of_the_api_server(
    case: str, who: str, pods: tuple[Pod, ...]
) -> None:
    spec, servers, expected = CASES[case]
    spec = replace(spec, backend_namespace="kube-system")
    decision: Decision[object] = DECISIONS[who](RedirectSettings(), servers)  # type: ignore[assignment]
    service = None
    if isinstance(spec.frontend, ServiceFrontend):
        ips = (ip_address("10.96.0.1"), ip_address("fd96::1"))
        service = Service(key=spec.frontend.service, cluster_ips=ips, ports=(port(443, TCP),))
    found = decision.decide(policy_facts(policy(spec), pods, service=service, nodes=[Node(name="")]))
    message: str = found.condition.message  # type: ignore[attr-defined]
    assert ("API server" in message) is bool(expected)
    assert expected in message


ADDRESSES = {
    "an IPv4 address": ("https://192.0.2.7:6443", {}, {("192.0.2.7", 6443)}),
    "an IPv6 address": ("https://[fd00::7]:6443", {}, {("fd00::7", 6443)}),
    "without a port": ("https://192.0.2.7", {}, {("192.0.2.7", 443)}),
    "a mapped address": ("https://[::ffff:192.0.2.7]:6443", {}, {("192.0.2.7", 6443)}),
    "a name": ("https://api.example:6443", {}, set()),
    "a name, in a Pod": (
        "https://api.example:6443",
        {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"},
        {("10.96.0.1", 443)},
    ),
}


@pytest.mark.parametrize("case", ADDRESSES)
def test_the_addresses_of_the_api_server_are_those_of_the_configuration(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, environment, addresses = ADDRESSES[case]
    for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", url)
    assert {(str(ip), number) for ip, number in Api(str(kubeconfig)).servers()} == addresses
