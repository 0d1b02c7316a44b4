"""Rules P1 to P3: the frontends of a policy; and P8: what the policy claims."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address

import pytest

from actors.resolving.frontends import find_frontends
from config.domain.addresses import Frontend, Protocol
from config.domain.ids import PolicyKind
from config.settings import DatapathSettings
from k8s.objects.claims import claims_of
from k8s.objects.model import Policy, PolicySpec, Service, ServiceFrontend
from tests.unit.objects import CACHE_PORTS, DNS_PORTS, NAME, SERVICE, TCP, UDP, address_spec, policy, port, service_spec


def frontends(spec: PolicySpec, service: Service | None = None, **families: bool) -> tuple[dict[str, int], str]:
    """Frontend -> backend port, and the reason or remark."""
    found = find_frontends(policy(spec), service, DatapathSettings(**families))  # type: ignore[arg-type]
    return {str(frontend): number for frontend, number in found.ports}, found.why_none or found.remark


HEADLESS = replace(SERVICE, cluster_ips=())
FRONTENDS: Mapping[str, tuple[PolicySpec, Service | None, dict[str, int], str]] = {
    "P1: without toPorts, each Service port that has a partner, at every cluster IP": (
        service_spec(),
        SERVICE,
        {
            "10.96.0.10:53/UDP": 5353,
            "10.96.0.10:53/TCP": 5354,
            "[fd00::a]:53/UDP": 5353,
            "[fd00::a]:53/TCP": 5354,
        },
        "",
    ),
    "P1: with toPorts, only those": (
        service_spec(port(53, TCP, "x"), backend=(port(9, TCP),)),
        SERVICE,
        {"10.96.0.10:53/TCP": 9, "[fd00::a]:53/TCP": 9},
        "",
    ),
    "P1: an entry that is no port of the Service is named, the others work": (
        service_spec(port(53, UDP, "dns"), port(54, TCP, "dns-tcp")),
        SERVICE,
        {"10.96.0.10:53/UDP": 5353, "[fd00::a]:53/UDP": 5353},
        "Service kube-system/dns has no port 54/TCP",
    ),
    "P1: a port matches by number and protocol": (
        service_spec(port(53, UDP, "dns"), backend=(port(5353, UDP),)),
        replace(SERVICE, ports=(port(53, TCP, "dns"),)),
        {},
        "Service kube-system/dns has no port 53/UDP",
    ),
    "P1: none of a Service that is missing": (service_spec(), None, {}, "Service kube-system/dns does not exist"),
    "P1: none of a headless Service": (
        service_spec(),
        HEADLESS,
        {},
        "Service kube-system/dns has no cluster IP (it is headless or an ExternalName)",
    ),
    "P1: none of a Service without TCP or UDP ports": (
        service_spec(),
        replace(SERVICE, ports=()),
        {},
        "Service kube-system/dns has no TCP or UDP port",
    ),
    "P1: none if no Service port has a partner": (
        service_spec(backend=(port(1, UDP, "other"), port(2, UDP, "another"))),
        SERVICE,
        {},
        "no port of the Service has a partner in spec.backend.toPorts",
    ),
    "P17: a cluster IP that cannot be a frontend is named, the others work": (
        service_spec(port(53, UDP, "x"), backend=(port(9, UDP),)),
        replace(SERVICE, cluster_ips=(ip_address("10.96.0.10"), ip_address("fe80::a"))),
        {"10.96.0.10:53/UDP": 9},
        (
            "a cluster IP of Service kube-system/dns cannot be a frontend: "
            "fe80::a is a link-local IPv6 address, which means nothing without an interface"
        ),
    ),
    "P17: none if no cluster IP can be a frontend": (
        service_spec(),
        replace(SERVICE, cluster_ips=(ip_address("127.0.0.1"), ip_address("::ffff:10.0.0.1"))),
        {},
        (
            "a cluster IP of Service kube-system/dns cannot be a frontend: "
            "127.0.0.1 is a loopback address, at which every Pod reaches itself, "
            f"{ip_address('::ffff:10.0.0.1')} is an IPv4 address mapped to IPv6 (write 10.0.0.1)"
        ),
    ),
    "P5: a Service that can't be understood says what is wrong": (
        service_spec(),
        Service(key=SERVICE.key, faults=("spec.clusterIP: 'x' is wrong; it must be an IP address or None",)),
        {},
        "Service kube-system/dns cannot be used: spec.clusterIP: 'x' is wrong; it must be an IP address or None",
    ),
    "P2: the address with each entry": (
        address_spec(to_ports=DNS_PORTS, backend=CACHE_PORTS),
        None,
        {"169.254.0.90:53/UDP": 5353, "169.254.0.90:53/TCP": 5354},
        "",
    ),
    "P2: an IPv6 address": (address_spec("fd00::90"), None, {"[fd00::90]:53/UDP": 5353}, ""),
    "P3: one and one belong together, whatever their names": (
        service_spec(backend=(port(9, UDP, "z"),)),
        replace(SERVICE, cluster_ips=SERVICE.cluster_ips[:1], ports=(port(53, UDP, "a"),)),
        {"10.96.0.10:53/UDP": 9},
        "",
    ),
    "P3: one and one of different protocols do not belong together": (
        service_spec(backend=(port(9, TCP),)),
        replace(SERVICE, ports=(port(53, UDP),)),
        {},
        "no port of the Service has a partner in spec.backend.toPorts",
    ),
    "P3: a Service port without a partner is left alone": (
        service_spec(backend=(port(5353, UDP, "dns"),)),
        replace(SERVICE, cluster_ips=SERVICE.cluster_ips[:1]),
        {"10.96.0.10:53/UDP": 5353},
        "",
    ),
    "P3: two frontend ports may share a backend port": (
        address_spec(to_ports=(port(53, UDP, "a"), port(54, UDP, "b")), backend=(port(9, UDP, "a"), port(9, UDP, "b"))),
        None,
        {"169.254.0.90:53/UDP": 9, "169.254.0.90:54/UDP": 9},
        "",
    ),
}


@pytest.mark.parametrize("case", FRONTENDS)
def test_the_frontends_of_a_policy_follow_from_its_matcher_and_the_service(case: str) -> None:
    spec, service, expected, text = FRONTENDS[case]
    assert frontends(spec, service) == (expected, text)


def test_a_family_that_is_turned_off_gives_no_frontends() -> None:
    assert frontends(service_spec(), SERVICE, ipv6=False)[0].keys() == {"10.96.0.10:53/UDP", "10.96.0.10:53/TCP"}
    assert frontends(address_spec(), ipv4=False) == (
        {},
        "its addresses are IPv4, which datapath.ipv4 and datapath.ipv6 turn off here",
    )


VIP = Frontend(ip_address("169.254.0.90"), 53, Protocol.UDP)
CLUSTER = {
    Frontend(address, 53, protocol) for address in SERVICE.cluster_ips for protocol in (Protocol.UDP, Protocol.TCP)
}


@pytest.mark.parametrize(
    ("subject", "claims"),
    [
        pytest.param(policy(address_spec()), {VIP, 7}, id="an address policy: frontends and policy id"),
        pytest.param(policy(service_spec()), {NAME, *CLUSTER, 7}, id="a service policy: its Service as well"),
        pytest.param(policy(replace(address_spec(), enabled=False)), set(), id="disabled: nothing"),
        pytest.param(policy(None, faults=("x",)), set(), id="invalid: nothing"),
        pytest.param(
            policy(PolicySpec(frontend=ServiceFrontend(service=NAME)), kind=PolicyKind.BALANCING),
            {NAME, *CLUSTER},
            id="a BalancingPolicy: all ports of the Service, and no policy id",
        ),
        pytest.param(
            policy(PolicySpec(frontend=address_spec().frontend), kind=PolicyKind.BALANCING),
            {VIP},
            id="a BalancingPolicy: an address",
        ),
    ],
)
@pytest.mark.parametrize("datapath", [DatapathSettings(), DatapathSettings(ipv4=False, ipv6=False)])
def test_p8_claims_are_the_same_on_all_nodes(subject: Policy, claims: set[object], datapath: DatapathSettings) -> None:
    assert claims_of(subject, find_frontends(subject, SERVICE, datapath).claimed) == claims


def test_p8_a_missing_service_is_claimed_by_name() -> None:
    subject = policy(service_spec())
    assert claims_of(subject, find_frontends(subject, None, DatapathSettings()).claimed) == {NAME, 7}
