"""`spec.backend.healthCheck` becomes a `HealthCheck`; every fault names its field and what is allowed."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from config.domain.checks import DnsProbe, HealthCheck, HttpProbe, TcpProbe
from config.settings import RedirectSettings
from k8s.objects.durations import milliseconds
from k8s.objects.model import Policy
from k8s.objects.policy import parse_policy

BOTH = [{"port": 9153, "protocol": "TCP", "name": "m"}, {"port": 53, "protocol": "UDP", "name": "d"}]
PATH = "spec.backend.healthCheck"


def parsed(check: object, ports: list[dict[str, Any]] | None = None) -> Policy:
    ports = BOTH if ports is None else ports
    raw = {
        "apiVersion": "balancing.elf.io/v1beta1",
        "kind": "LocalRedirectPolicy",
        "metadata": {"name": "p"},
        "spec": {
            "frontend": {"addressMatcher": {"ip": "169.254.0.90", "toPorts": ports}},
            "backend": {
                "endpointSelector": {"matchLabels": {"app": "a"}},
                "toPorts": ports,
                "healthCheck": yaml.safe_load(check) if isinstance(check, str) else check,
            },
        },
    }
    return parse_policy(raw, RedirectSettings())


def check_of(check: object, ports: list[dict[str, Any]] | None = None) -> HealthCheck | None:
    policy = parsed(check, ports)
    assert (policy.faults, policy.unknown_fields) == ((), ())
    assert policy.spec
    return policy.spec.health_check


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50ms", 50),
        ("1s", 1000),
        ("5m", 300_000),
        ("1m30s", 90_000),
        ("30s1m", 90_000),
        ("1s1s", 2000),
        ("00060s", 60_000),
        ("1h1m1s1ms", 3_661_001),
        ("1", None),
        ("", None),
        ("-1s", None),
        ("1.5s", None),
        ("1us", None),
        ("1 s", None),
        ("1s ", None),
        ("1S", None),
        ("100000s", None),
        ("1s1s1s1s1s", None),
        ("\u0661s", None),
    ],
)
def test_durations_are_those_of_the_gateway_api(text: str, expected: int | None) -> None:
    assert milliseconds(text) == expected


@pytest.mark.parametrize("none", [None, "~"])
def test_a_policy_without_a_check_has_none(none: object) -> None:
    assert check_of(none) is None


def test_what_is_left_out_has_a_default() -> None:
    assert check_of("dns: {}") == HealthCheck(
        probe=DnsProbe(name=".", type="NS"),
        port=53,
        interval=1.0,
        timeout=0.5,
        failure_threshold=2,
        success_threshold=1,
    )


@pytest.mark.parametrize(
    ("text", "probe", "port"),
    [
        ("dns: {name: example.com, type: AAAA}", DnsProbe(name="example.com", type="AAAA"), 53),
        ("dns: {name: _dns._udp.a-b.}", DnsProbe(name="_dns._udp.a-b.", type="NS"), 53),
        ("tcp: {}", TcpProbe(), 9153),
        ("http: {}", HttpProbe(path="/"), 9153),
        ("{http: {path: '/ready?full=1'}, port: 8181}", HttpProbe(path="/ready?full=1"), 8181),
        ("{dns: {}, port: '5353', tcp: null}", DnsProbe(name=".", type="NS"), 5353),
    ],
)
def test_each_kind_goes_to_the_first_port_that_fits_or_to_the_one_named(text: str, probe: object, port: int) -> None:
    found = check_of(text)
    assert found and (found.probe, found.port) == (probe, port)


def test_a_port_that_is_named_needs_no_backend_port_of_its_protocol() -> None:
    found = check_of("{http: {}, port: 8080}", [{"port": 53, "protocol": "UDP"}])
    assert found and found.port == 8080


@pytest.mark.parametrize(
    ("times", "interval", "timeout"),
    [
        ("interval: 100ms", 0.1, 0.1),
        ("interval: 400ms", 0.4, 0.4),
        ("interval: 2s", 2.0, 0.5),
        ("timeout: 1s", 1.0, 1.0),
        ("interval: 5m, timeout: 5m", 300.0, 300.0),
        ("interval: 50ms, timeout: 50ms", 0.05, 0.05),
    ],
)
def test_the_time_out_is_half_a_second_or_a_shorter_interval(times: str, interval: float, timeout: float) -> None:
    found = check_of(f"{{dns: {{}}, {times}}}")
    assert found and (found.interval, found.timeout) == (interval, timeout)


def test_thresholds_are_taken_over() -> None:
    found = check_of("{dns: {}, failureThreshold: 100, successThreshold: 3}")
    assert found and (found.failure_threshold, found.success_threshold) == (100, 3)


DURATION = "it must be a duration of 50ms to 5m, such as 500ms, 1s or 1m30s (whole numbers with h, m, s or ms)"
NAME = "it must be a DNS name of up to 253 letters"
FAULTS = [
    ("{}", f"{PATH}: has no kind of check; it must have exactly one of dns, tcp and http, such as 'dns: {{}}'"),
    ("dns:", f"{PATH}: has no kind of check"),
    ("{dns: {}, http: {}}", f"{PATH}: has dns and http; it must have exactly one of dns, tcp and http"),
    ("{dns: {}, tcp: {}, http: {}}", f"{PATH}: has dns and tcp and http"),
    ("dns: .", f"{PATH}.dns: '.' is wrong; it must be a mapping"),
    ("tcp: true", f"{PATH}.tcp: true is wrong; it must be a mapping"),
    ("dns: {name: 'a b'}", f"{PATH}.dns.name: 'a b' is wrong; {NAME}"),
    ("dns: {name: a..b}", f"{PATH}.dns.name: 'a..b' is wrong; {NAME}"),
    ("dns: {name: .a}", f"{PATH}.dns.name: '.a' is wrong; {NAME}"),
    ("dns: {name: -a}", f"{PATH}.dns.name: '-a' is wrong; {NAME}"),
    ("dns: {name: 1}", f"{PATH}.dns.name: 1 is wrong; {NAME}"),
    (f"dns: {{name: {'a' * 64}}}", f"{PATH}.dns.name: '"),
    (f"dns: {{name: {'a.' * 127}}}", f"{PATH}.dns.name: '"),
    ("dns: {type: ANY}", f"{PATH}.dns.type: 'ANY' is wrong; it must be A or AAAA or CNAME or MX or NS or PTR or SOA"),
    ("http: {path: ready}", f"{PATH}.http.path: 'ready' is wrong; it must be a path of up to 1024 ASCII characters"),
    ("http: {path: '/a b'}", f"{PATH}.http.path: '/a b' is wrong; it must be a path"),
    ('http: {path: "/\\r\\nHost: a"}', f"{PATH}.http.path: "),
    ("http: {path: /é}", f"{PATH}.http.path: '/é' is wrong"),
    ("{tcp: {}, port: 0}", f"{PATH}.port: 0 is wrong; it must be a whole number from 1 to 65535"),
    ("{tcp: {}, port: http}", f"{PATH}.port: 'http' is wrong; it must be a whole number"),
    ("{tcp: {}, interval: 1}", f"{PATH}.interval: 1 is wrong; {DURATION}"),
    ("{tcp: {}, interval: ''}", f"{PATH}.interval: '' is wrong; {DURATION}"),
    ("{tcp: {}, interval: 1.5s}", f"{PATH}.interval: '1.5s' is wrong; {DURATION}"),
    ("{tcp: {}, interval: 49ms}", f"{PATH}.interval: '49ms' is wrong; {DURATION}"),
    ("{tcp: {}, interval: 5m1ms}", f"{PATH}.interval: '5m1ms' is wrong; {DURATION}"),
    ("{tcp: {}, timeout: 0s}", f"{PATH}.timeout: '0s' is wrong; {DURATION}"),
    ("{tcp: {}, timeout: 2s}", f"{PATH}.timeout: '2s' is longer than the interval; it must be at most that, so that"),
    ("{tcp: {}, interval: 50ms, timeout: 51ms}", f"{PATH}.timeout: '51ms' is longer than the interval"),
    ("{tcp: {}, failureThreshold: 0}", f"{PATH}.failureThreshold: 0 is wrong; it must be a whole number from 1 to 100"),
    ("{tcp: {}, successThreshold: 101}", f"{PATH}.successThreshold: 101 is wrong; it must be a whole number from 1"),
]


@pytest.mark.parametrize(("check", "begins"), FAULTS, ids=[row[0] for row in FAULTS])
def test_p9_a_faulty_check_is_named_with_what_is_allowed(check: str, begins: str) -> None:
    policy = parsed(check)
    assert policy.spec is None
    (fault,) = policy.faults
    assert fault.startswith(begins)


@pytest.mark.parametrize(
    ("check", "protocol", "missing"),
    [("dns: {}", "TCP", "UDP"), ("tcp: {}", "UDP", "TCP"), ("http: {}", "UDP", "TCP")],
)
def test_a_check_whose_protocol_no_backend_port_has_needs_a_port(check: str, protocol: str, missing: str) -> None:
    (fault,) = parsed(check, [{"port": 53, "protocol": protocol}]).faults
    assert fault == (
        f"{PATH}.port: is missing, and spec.backend.toPorts has no entry with protocol {missing}, which this check "
        "uses; it must be a port number from 1 to 65535, or toPorts must have such an entry"
    )


def test_misspelt_fields_are_reported() -> None:
    policy = parsed("{dns: {nam: a}, tcp: null, failuresThreshold: 3}")
    known = "dns, tcp, http, port, interval, timeout, failureThreshold, successThreshold"
    assert policy.unknown_fields == (
        f"{PATH}.failuresThreshold: is unknown (did you mean failureThreshold?); it must be one of {known}",
        f"{PATH}.dns.nam: is unknown (did you mean name?); it must be one of name, type",
    )


def test_a_field_of_a_mapping_that_has_none_is_reported() -> None:
    (unknown,) = parsed("{tcp: {port: 1}}").unknown_fields
    assert unknown == f"{PATH}.tcp.port: is unknown; the mapping must be empty"
