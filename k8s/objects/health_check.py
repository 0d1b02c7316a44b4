"""Reading `spec.backend.healthCheck`. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from config.domain.checks import DnsProbe, HealthCheck, HttpProbe, Probe, TcpProbe, protocol_of
from config.input.faults import WrongValue, shown
from config.input.fields import Fields
from k8s.objects.durations import milliseconds
from k8s.objects.model import PortSpec

_SHORTEST, _LONGEST = 50, 300_000
"""Milliseconds."""
_DURATION_RULE = "a duration of 50ms to 5m, such as 500ms, 1s or 1m30s (whole numbers with h, m, s or ms)"
_LABEL = r"[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?"
_DNS_NAME = re.compile(rf"(?=.{{1,253}}\Z)([.]|{_LABEL}([.]{_LABEL})*[.]?)")
_DNS_TYPES = {each: each for each in ("A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT")}
_HTTP_PATH = re.compile(r"(?=.{1,1024}\Z)/[!-~]*")
_MAX_RESULTS = 100
_DEFAULT_INTERVAL, _DEFAULT_TIMEOUT = 1000, 500
"""Milliseconds. If the interval is shorter than the default time-out, the time-out is the interval."""
_DEFAULT_FAILURES, _DEFAULT_SUCCESSES = 2, 1


def read_health_check(backend: Fields, ports: Sequence[PortSpec]) -> HealthCheck | None:
    """None if there is no health check, or a faulty one. `ports`: spec.backend.toPorts, empty if those are faulty."""
    known = (*_KINDS, "port", "interval", "timeout", "failureThreshold", "successThreshold")
    check = backend.mapping("healthCheck", known)
    if check is None:
        return None
    probe = _read_probe(check)
    port = check.integer("port", 1, 65535, quoted=True)
    interval = check.read("interval", _duration) if check.has("interval") else _DEFAULT_INTERVAL
    default_timeout = min(_DEFAULT_TIMEOUT, interval or _DEFAULT_TIMEOUT)
    timeout = check.read("timeout", _duration) if check.has("timeout") else default_timeout
    if interval and timeout and timeout > interval:
        wrong = f"{shown(check.get('timeout'))} is longer than the interval"
        check.fault("timeout", f"{wrong}; it must be at most that, so that a check ends before the next one starts")
    failures = check.integer("failureThreshold", 1, _MAX_RESULTS)
    successes = check.integer("successThreshold", 1, _MAX_RESULTS)
    if probe is None or interval is None or timeout is None:
        return None
    if port is None and not check.has("port"):
        port = _first_port(check, probe, ports)
    if port is None:
        return None
    return HealthCheck(
        probe=probe,
        port=port,
        interval=interval / 1000,
        timeout=timeout / 1000,
        failure_threshold=failures or _DEFAULT_FAILURES,
        success_threshold=successes or _DEFAULT_SUCCESSES,
    )


def _read_probe(check: Fields) -> Probe | None:
    kinds = [kind for kind in _KINDS if check.has(kind)]
    if len(kinds) != 1:
        found = f"has {' and '.join(kinds)}" if kinds else "has no kind of check"
        check.report.fault(check.path, f"{found}; it must have exactly one of dns, tcp and http, such as 'dns: {{}}'")
        return None
    return _KINDS[kinds[0]](check)


def _read_dns(check: Fields) -> DnsProbe:
    dns = check.mapping("dns", ("name", "type")) or Fields({}, "", check.report)
    allowed = "a DNS name of up to 253 letters, digits, '-', '_' and '.', such as '.' or 'example.com'"
    name = dns.text("name", _DNS_NAME.fullmatch, allowed)
    return DnsProbe(name=name or ".", type=dns.choice("type", _DNS_TYPES) or "NS")


def _read_tcp(check: Fields) -> TcpProbe:
    check.mapping("tcp", ())
    return TcpProbe()


def _read_http(check: Fields) -> HttpProbe:
    http = check.mapping("http", ("path",)) or Fields({}, "", check.report)
    allowed = "a path of up to 1024 ASCII characters without spaces that starts with '/', such as '/healthz'"
    return HttpProbe(path=http.text("path", _HTTP_PATH.fullmatch, allowed) or "/")


_KINDS: dict[str, Callable[[Fields], Probe]] = {"dns": _read_dns, "tcp": _read_tcp, "http": _read_http}


def _duration(raw: object) -> int:
    """Milliseconds."""
    found = milliseconds(raw) if isinstance(raw, str) else None
    if found is None or not _SHORTEST <= found <= _LONGEST:
        raise WrongValue(raw, _DURATION_RULE)
    return found


def _first_port(check: Fields, probe: Probe, ports: Sequence[PortSpec]) -> int | None:
    protocol = protocol_of(probe)
    port = next((each.port for each in ports if each.protocol == protocol), None)
    if port is None and ports:
        check.fault(
            "port",
            f"is missing, and spec.backend.toPorts has no entry with protocol {protocol}, which this check uses; "
            "it must be a port number from 1 to 65535, or toPorts must have such an entry",
        )
    return port
