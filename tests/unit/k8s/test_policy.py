"""Raw policies become `Policy` values; every fault names its field (rules P1 to P6, P9, P13)."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta, timezone
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.domain.addresses import Protocol
from config.domain.ids import PolicyKind
from config.settings import RedirectSettings
from k8s.objects.model import AddressFrontend, Policy, PortSpec, ServiceFrontend
from k8s.objects.policy import parse_policy
from k8s.objects.ports import partner_ports

EXAMPLES = Path(__file__).parents[3] / "k8s" / "examples"
DELETE = object()


def address_policy() -> dict[str, Any]:
    return {
        "apiVersion": "balancing.elf.io/v1beta1",
        "kind": "LocalRedirectPolicy",
        "metadata": {"name": "p", "annotations": {"balancing.elf.io/serviceId": "7"}},
        "spec": {
            "frontend": {"addressMatcher": {"ip": "169.254.0.90", "toPorts": [{"port": 80}]}},
            "backend": {"endpointSelector": {"matchLabels": {"app": "a"}}, "toPorts": [{"port": "8080"}]},
            "config": {},
        },
    }


def changed(path: str, value: object) -> dict[str, Any]:
    raw = address_policy()
    *parents, last = path.split("/")
    target = raw
    for part in parents:
        target = target.setdefault(part, {})
    if value is DELETE:
        del target[last]
    else:
        target[last] = copy.deepcopy(value)
    return raw


def parse(raw: object, **redirect: Any) -> Policy:
    return parse_policy(raw, RedirectSettings(**redirect))


FRONT = "spec/frontend/addressMatcher"
BACK = "spec/backend"
SERVICE = {"serviceMatcher": {"serviceName": "s", "namespace": "n"}}


def port(number: object, name: str = "", protocol: object = "TCP") -> dict[str, object]:
    return {"port": number, "protocol": protocol, "name": name}


@pytest.mark.parametrize("name", ["address-frontend.yaml", "service-frontend.yaml"])
def test_the_users_examples_are_valid_as_they_stand(name: str) -> None:
    policy = parse(yaml.safe_load((EXAMPLES / name).read_text()))
    assert policy.faults == () and policy.unknown_fields == ()
    assert policy.spec is not None
    assert [(entry.port, entry.name) for entry in policy.spec.frontend.to_ports] == [(8080, "p1"), (80, "p2")]


@pytest.mark.parametrize("ip", ["169.254.20.10", "169.254.169.254", "126.0.0.1", "128.0.0.1", "fec0::1", "fe7f::1"])
def test_p17_addresses_next_to_those_that_cannot_work_may_be_frontends(ip: str) -> None:
    assert parse(changed(f"{FRONT}/ip", ip)).faults == ()


def test_a_service_matcher_without_ports_means_every_service_port() -> None:
    policy = parse(changed("spec/frontend", SERVICE))
    assert policy.spec is not None
    assert isinstance(policy.spec.frontend, ServiceFrontend)
    assert policy.spec.frontend.to_ports == ()


# What is wrong, the path of the field that is changed, its value, and what the one fault begins with.
FAULTS: list[tuple[str, str, object, str]] = [
    ("wrong group", "apiVersion", "v1", "apiVersion: 'v1' is wrong"),
    ("no spec", "spec", None, "spec: is missing"),
    ("spec is a string", "spec", "x", "spec: 'x' is wrong; it must be a mapping"),
    ("no name", "metadata/name", None, "metadata.name: is missing"),
    ("name with capitals", "metadata/name", "Big", "metadata.name: 'Big' is wrong"),
    ("300 characters", "metadata/name", "a" * 300, f"metadata.name: '{'a' * 40}'... (300 characters) is wrong"),
    ("creation is no time", "metadata/creationTimestamp", "soon", "metadata.creationTimestamp: 'soon' is wrong"),
    ("serviceId 0", "metadata/annotations", {"balancing.elf.io/serviceId": "0"}, "metadata.annotations.balancing"),
    ("serviceId 2^32", "metadata/annotations", {"balancing.elf.io/serviceId": 2**32}, "metadata.annotations.balanc"),
    ("serviceId a word", "metadata/annotations", {"balancing.elf.io/serviceId": "x"}, "metadata.annotations.balanc"),
    ("P9 no matcher", "spec/frontend", {}, "spec.frontend: has no matcher"),
    (
        "P9 two matchers",
        "spec/frontend",
        {**SERVICE, "addressMatcher": {"ip": "10.0.0.1", "toPorts": [port(1)]}},
        "spec.frontend: has both serviceMatcher and addressMatcher",
    ),
    ("P2 no ip", f"{FRONT}/ip", DELETE, "spec.frontend.addressMatcher.ip: is missing"),
    ("P2 no address", f"{FRONT}/ip", "10.0.0", "spec.frontend.addressMatcher.ip: '10.0.0' is not an IP address"),
    ("P2 a number", f"{FRONT}/ip", 1, "spec.frontend.addressMatcher.ip: 1 is wrong"),
    ("P2 zone", f"{FRONT}/ip", "fe80::1%eth0", "spec.frontend.addressMatcher.ip: 'fe80::1%eth0' has a zone id"),
    ("P2 any", f"{FRONT}/ip", "0.0.0.0", "spec.frontend.addressMatcher.ip: '0.0.0.0' is the unspecified"),
    ("P2 any, IPv6", f"{FRONT}/ip", "::", "spec.frontend.addressMatcher.ip: '::' is the unspecified"),
    ("P2 multicast", f"{FRONT}/ip", "ff02::1", "spec.frontend.addressMatcher.ip: 'ff02::1' is a multicast"),
    ("P2 mapped", f"{FRONT}/ip", "::ffff:1.2.3.4", "spec.frontend.addressMatcher.ip: '::ffff:1.2.3.4' is an IPv4"),
    *(
        (f"P17 {ip}", f"{FRONT}/ip", ip, f"spec.frontend.addressMatcher.ip: '{ip}' is a {what}")
        for ip, what in {
            "127.0.0.1": "loopback address, at which every Pod reaches itself; it must be an address that all Pods",
            "127.255.255.254": "loopback",
            "::1": "loopback",
            "0:0:0:0:0:0:0:1": "loopback",
            "::ffff:127.0.0.1": "loopback",
            "fe80::1": "link-local IPv6 address, which means nothing without an interface; it must be an address that",
            "febf::1": "link-local IPv6",
            "::ffff:224.0.0.1": "multicast",
        }.items()
    ),
    ("P2 no ports", f"{FRONT}/toPorts", DELETE, "spec.frontend.addressMatcher.toPorts: is missing or empty"),
    ("P2 empty ports", f"{FRONT}/toPorts", [], "spec.frontend.addressMatcher.toPorts: is missing or empty"),
    (
        "ports no list",
        f"{FRONT}/toPorts",
        {},
        "spec.frontend.addressMatcher.toPorts: an empty mapping is wrong",
    ),
    ("port 0", f"{FRONT}/toPorts", [port(0)], "spec.frontend.addressMatcher.toPorts[0].port: 0 is wrong"),
    ("port 65536", f"{FRONT}/toPorts", [port("65536")], "spec.frontend.addressMatcher.toPorts[0].port: '65536'"),
    ("port true", f"{FRONT}/toPorts", [port(True)], "spec.frontend.addressMatcher.toPorts[0].port: true is wrong"),
    ("port 8e1", f"{FRONT}/toPorts", [port("8e1")], "spec.frontend.addressMatcher.toPorts[0].port: '8e1' is wrong"),
    ("lower-case tcp", f"{FRONT}/toPorts", [port(1, protocol="tcp")], "spec.frontend.addressMatcher.toPorts[0].prot"),
    ("SCTP", f"{BACK}/toPorts", [port(1, protocol="SCTP")], "spec.backend.toPorts[0].protocol: 'SCTP' is wrong"),
    ("P3 name needed", f"{FRONT}/toPorts", [port(1, "a"), {"port": 2}], "spec.frontend.addressMatcher.toPorts[1].name"),
    (
        "P3 name twice",
        f"{BACK}/toPorts",
        [port(1, "a"), port(2, "a")],
        "spec.backend.toPorts[1].name: 'a' appears twice",
    ),
    ("port twice", f"{FRONT}/toPorts", [port(1, "a"), port(1, "b")], "spec.frontend.addressMatcher.toPorts[1].port"),
    ("P3 protocols differ", f"{BACK}/toPorts", [port(1, protocol="UDP")], "spec.frontend.addressMatcher.toPorts[0]"),
    ("no backend", "spec/backend", DELETE, "spec.backend: is missing"),
    ("no backend ports", f"{BACK}/toPorts", DELETE, "spec.backend.toPorts: is missing or empty"),
    ("P4 no selector", f"{BACK}/endpointSelector", DELETE, "spec.backend.endpointSelector: is missing"),
    ("P4 empty selector", f"{BACK}/endpointSelector", {}, "spec.backend.endpointSelector: is empty"),
    ("P4 empty labels", f"{BACK}/endpointSelector", {"matchLabels": {}}, "spec.backend.endpointSelector: is empty"),
    ("P6 namespace", f"{BACK}/namespace", "A_B", "spec.backend.namespace: 'A_B' is wrong"),
    ("enabled quoted", "spec/enabled", "true", "spec.enabled: 'true' is wrong"),
    ("host flag", "spec/config/redirectFromHost", 1, "spec.config.redirectFromHost: 1 is wrong"),
    ("P21 mode", "spec/config/mode", "shadow", "spec.config.mode: 'shadow' is wrong; it must be"),
    ("P21 mode true", "spec/config/mode", True, "spec.config.mode: true is wrong"),
    ("P21 0 %", "spec/config/percentage", 0, "spec.config.percentage: 0 is wrong; it must be a whole number from 1 to"),
    ("P21 101 %", "spec/config/percentage", 101, "spec.config.percentage: 101 is wrong"),
    ("P21 half a percent", "spec/config/percentage", 0.5, "spec.config.percentage: 0.5 is wrong"),
    ("P21 percentage quoted", "spec/config/percentage", "10", "spec.config.percentage: '10' is wrong"),
    ("backend flag", "spec/config/skipRedirectFromBackend", "no", "spec.config.skipRedirectFromBackend: 'no'"),
    ("compatibility flag", "spec/config/enableOutCluster", 3, "spec.config.enableOutCluster: 3 is wrong"),
    ("P11 negative limit", "spec/config/redirectQosLimit", -1, "spec.config.redirectQosLimit: -1 is wrong"),
    ("P11 huge limit", "spec/config/redirectQosLimit", 10**400, "spec.config.redirectQosLimit: a huge number"),
    ("P11 limit true", "spec/config/redirectQosLimit", True, "spec.config.redirectQosLimit: true is wrong"),
    ("P13 affinity", "spec/config/sessionAffinity", "Cookie", "spec.config.sessionAffinity: 'Cookie' is wrong"),
    ("P13 time 0", "spec/config/sessionAffinityTimeoutSeconds", 0, "spec.config.sessionAffinityTimeoutSeconds: 0"),
    ("P13 time", "spec/config/sessionAffinityTimeoutSeconds", 86401, "spec.config.sessionAffinityTimeoutSeconds"),
    (
        "node selector",
        "spec/config/nodeLabelSelector",
        {"matchLabels": {"a": 1}},
        "spec.config.nodeLabelSelector.match",
    ),
]


@pytest.mark.parametrize(("path", "value", "begins"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_p9_a_faulty_field_is_named_once_and_the_policy_has_no_spec(path: str, value: object, begins: str) -> None:
    policy = parse(changed(path, value))
    assert policy.spec is None
    named = [fault for fault in policy.faults if fault.startswith(begins)]
    assert len(named) == 1, policy.faults
    assert all(len(fault) < 400 and "\n" not in fault for fault in policy.faults)


@pytest.mark.parametrize("raw", [None, 1, "x", [], {}, {"kind": []}, {1: 2}, {"metadata": 3, "spec": [1]}])
def test_p9_the_parser_raises_for_no_value(raw: object) -> None:
    policy = parse(raw)
    assert policy.spec is None and policy.faults


def test_all_faults_are_collected_not_only_the_first() -> None:
    raw = changed(f"{FRONT}/ip", "x")
    raw["spec"]["enabled"] = "x"
    raw["spec"]["backend"] = {}
    assert len(parse(raw).faults) == 4


def test_p6_an_address_outside_the_configured_prefixes_is_a_fault() -> None:
    cidrs = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    (fault,) = parse(address_policy(), address_cidrs=cidrs).faults
    assert "169.254.0.90 is outside" in fault and "10.0.0.0/8, fd00::/8" in fault
    assert parse(changed(f"{FRONT}/ip", "fd00::1"), address_cidrs=cidrs).faults == ()


def test_p6_namespaces_of_address_policies_are_limited_those_of_service_policies_are_not() -> None:
    allowed = frozenset({"dns"})
    raw = changed(f"{BACK}/namespace", "other")
    (fault,) = parse(raw, address_backend_namespaces=allowed).faults
    assert fault.startswith("spec.backend.namespace: 'other' is outside") and "dns" in fault
    raw["spec"]["frontend"] = SERVICE
    assert parse(raw, address_backend_namespaces=allowed).faults == ()
    assert parse(changed(f"{BACK}/namespace", "dns"), address_backend_namespaces=allowed).faults == ()


def test_optional_fields_reach_the_spec() -> None:
    raw = changed("spec/config", {
        "nodeLabelSelector": {},
        "redirectQosLimit": 0,
        "redirectFromHost": False,
        "mode": "Shadow",
        "percentage": 10,
        "skipRedirectFromBackend": False,
        "sessionAffinity": "ClientIP",
        "sessionAffinityTimeoutSeconds": 5,
        "enableOutCluster": True,
    })  # fmt: skip
    raw["spec"]["enabled"] = False
    spec = parse(raw).spec
    assert spec is not None
    assert (spec.enabled, spec.qos_limit, spec.redirect_from_host, spec.skip_redirect_from_backend) == (
        False,
        0,
        False,
        False,
    )
    assert (spec.session_affinity, spec.affinity_seconds) == (True, 5)
    assert (spec.shadow, spec.percentage) == (True, 10)
    assert spec.node_selector is not None and isinstance(spec.frontend, AddressFrontend)


@pytest.mark.parametrize("config", [{}, {"mode": "Redirect", "percentage": 100}], ids=["not given", "the defaults"])
def test_p21_by_default_all_calls_of_all_clients_are_redirected(config: dict[str, object]) -> None:
    spec = parse(changed("spec/config", config)).spec
    assert spec is not None
    assert (spec.shadow, spec.percentage) == (False, 100)


def test_unknown_fields_are_not_faults_and_name_a_similar_one() -> None:
    raw = changed("spec/config/redirectQosLimits", 3)
    policy = parse(raw)
    assert policy.spec is not None
    (unknown,) = policy.unknown_fields
    says = "spec.config.redirectQosLimits: is unknown (did you mean redirectQosLimit?); it must be one of nodeLabelSel"
    assert unknown.startswith(says)


@pytest.mark.parametrize("value", ["10091", 10091])
def test_the_annotation_gives_the_number(value: object) -> None:
    policy = parse(changed("metadata/annotations", {"balancing.elf.io/serviceId": value}))
    assert (policy.policy_id, policy.policy_id_explicit) == (10091, True)


def test_without_annotation_the_number_comes_from_the_uid_else_from_the_name() -> None:
    def number(**metadata: str) -> int:
        policy = parse(changed("metadata", metadata))
        assert not policy.policy_id_explicit and 1 <= policy.policy_id < 2**32
        return policy.policy_id

    assert number(name="a", uid="u") == number(name="b", uid="u") != number(name="a")
    assert number(name="a") == number(name="a") != number(name="b")


@pytest.mark.parametrize(
    "value",
    [
        "2026-01-31T12:00:00Z",
        "2026-01-31T13:00:00+01:00",
        "2026-01-31T12:00:00.9Z",
        datetime(2026, 1, 31, 12, 0, 0),
        datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC),
        datetime(2026, 1, 31, 13, 0, 0, tzinfo=timezone(timedelta(hours=1))),
    ],
)
def test_p8_creation_times_are_normalised_so_that_they_sort(value: object) -> None:
    assert parse(changed("metadata/creationTimestamp", value)).created_at == "2026-01-31T12:00:00Z"


def test_of_a_balancing_policy_only_the_frontend_is_read() -> None:
    raw = changed("spec/backend", 17)
    raw["kind"] = "BalancingPolicy"
    raw["spec"]["whatever"] = True
    policy = parse(raw)
    assert policy.key.kind is PolicyKind.BALANCING
    assert policy.spec is not None and policy.faults == () and policy.unknown_fields == ()


def spec(number: int, name: str = "", protocol: Protocol = Protocol.TCP) -> PortSpec:
    return PortSpec(port=number, protocol=protocol, name=name)


UDP = Protocol.UDP


@pytest.mark.parametrize(
    ("frontend", "backend", "pairs"),
    [
        pytest.param([spec(1, "a")], [spec(2, "b")], [(1, 2)], id="one each: names do not matter"),
        pytest.param([spec(1)], [spec(2, protocol=UDP)], [], id="one each: the protocol does"),
        pytest.param([spec(1, "a")], [spec(2, "b"), spec(3, "a")], [(1, 3)], id="several: by name"),
        pytest.param([spec(1, "a"), spec(2, "b")], [spec(3, "b")], [(2, 3)], id="one without partner"),
        pytest.param([spec(1, "a"), spec(1, "a", UDP)], [spec(3, "a", UDP), spec(4, "a")], [(1, 4), (1, 3)], id="both"),
        pytest.param([spec(1), spec(2)], [spec(3), spec(4)], [], id="no names, no pairs"),
    ],
)
def test_p3_ports_are_partners_by_name_or_if_there_is_one_of_each(
    frontend: list[PortSpec], backend: list[PortSpec], pairs: list[tuple[int, int]]
) -> None:
    assert [(front.port, back.port) for front, back in partner_ports(frontend, backend)] == pairs


def test_p3_every_entry_without_a_partner_is_a_fault() -> None:
    raw = changed(f"{FRONT}/toPorts", [port(1, "a"), port(2, "b")])
    raw["spec"]["backend"]["toPorts"] = [port(3, "b"), port(4, "c")]
    faults = parse(raw).faults
    assert [fault.split(": ")[0] for fault in faults] == [
        "spec.frontend.addressMatcher.toPorts[0]",
        "spec.backend.toPorts[1]",
    ]


def test_a_hostile_name_gives_a_short_printable_key() -> None:
    first, second = (parse(changed("metadata/name", "\ud800é\n" * 200 + tail)).key.name for tail in "ab")
    assert first != second
    assert first.isascii() and first.isprintable() and len(first) <= 253
