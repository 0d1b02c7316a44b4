"""Raw LocalRedirectPolicy and BalancingPolicy -> `Policy`, with every fault by the path of its field. Pure.

Nothing here raises: an invalid policy becomes a `Policy` without a spec (P9).
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

from config.domain.addresses import Address
from config.domain.ids import NamespacedName, PolicyKey, PolicyKind
from config.domain.names import DNS_LABEL
from config.input.faults import Report, shown
from config.input.fields import Fields
from config.input.values import MAX_UINT32
from config.settings import ANY_NAMESPACE, RedirectSettings
from k8s.objects.addresses import why_unreachable
from k8s.objects.health_check import read_health_check
from k8s.objects.metadata import check_name, key_name, read_created_at, read_metadata
from k8s.objects.model import MAX_AFFINITY_SECONDS, AddressFrontend, Policy, PolicySpec, ServiceFrontend
from k8s.objects.policy_id import derived_policy_id, read_policy_id
from k8s.objects.ports import check_partners, read_ports
from k8s.objects.selector import read_selector

API_VERSION = "balancing.elf.io/v1beta1"
_LABEL_RULE = "a DNS label (up to 63 lower-case letters, digits or '-')"
_TOP_FIELDS = ("apiVersion", "kind", "metadata", "spec", "status")
_CONFIG_FIELDS = (
    "nodeLabelSelector",
    "redirectQosLimit",
    "redirectFromHost",
    "mode",
    "percentage",
    "skipRedirectFromBackend",
    "sessionAffinity",
    "sessionAffinityTimeoutSeconds",
    "enableOutCluster",
)


def parse_policy(raw: object, redirect: RedirectSettings) -> Policy:
    """`raw` may be any value; `redirect` says which addresses and namespaces policies may use (P6)."""
    return read_policy(raw, redirect, Report())


def read_policy(raw: object, redirect: RedirectSettings, report: Report) -> Policy:
    """As `parse_policy`. The faults also go into `report`, which must be empty, for a caller that needs their paths."""
    is_balancing = isinstance(raw, dict) and raw.get("kind") == PolicyKind.BALANCING
    kind = PolicyKind.BALANCING if is_balancing else PolicyKind.LOCAL_REDIRECT
    # A BalancingPolicy belongs to another product. We read only its frontend, so any other fields are allowed.
    fields = Fields(raw, "", report, None if is_balancing else _TOP_FIELDS)
    fields.text("apiVersion", API_VERSION.__eq__, API_VERSION, needed=True)
    fields.text("kind", kind.__eq__, str(kind), needed=True)
    metadata = read_metadata(fields)
    if metadata.report is report:
        check_name(metadata)
    name = key_name(metadata.get("name"))
    created_at = read_created_at(metadata)
    asked_id = None if is_balancing else read_policy_id(metadata)
    spec = _read_balancing_spec(fields, redirect) if is_balancing else _read_spec(fields, redirect)
    uid, generation = metadata.get("uid"), metadata.get("generation")
    uid = uid if isinstance(uid, str) else ""
    return Policy(
        key=PolicyKey(kind, name),
        uid=uid,
        generation=generation if isinstance(generation, int) else 0,
        policy_id=asked_id or derived_policy_id(kind, uid, name),
        policy_id_explicit=asked_id is not None,
        created_at=created_at,
        spec=None if report.faults else spec,
        faults=report.all_faults(),
        unknown_fields=tuple(map(str, report.unknown)),
    )


def _read_balancing_spec(fields: Fields, redirect: RedirectSettings) -> PolicySpec | None:
    spec = fields.required("spec")
    frontend = spec.required("frontend") if spec else None
    read = read_frontend(frontend, redirect) if frontend else None
    return PolicySpec(frontend=read[0]) if read else None


def _read_spec(fields: Fields, redirect: RedirectSettings) -> PolicySpec | None:
    spec = fields.required("spec", ("enabled", "frontend", "backend", "config"))
    if spec is None:
        return None
    enabled = spec.boolean("enabled", True)
    frontend_fields = spec.required("frontend", ("serviceMatcher", "addressMatcher"))
    read = read_frontend(frontend_fields, redirect) if frontend_fields else None
    backend = spec.required("backend", ("endpointSelector", "toPorts", "namespace", "healthCheck"))
    if backend is not None:
        selector = read_selector(backend, "endpointSelector", needed=True)
        ports = read_ports(backend, needed=True, unique_ports=False)
        namespace = backend.text("namespace", DNS_LABEL.fullmatch, _LABEL_RULE)
        health_check = read_health_check(backend, ports)
    config = spec.mapping("config", _CONFIG_FIELDS) or Fields({}, "spec.config", spec.report)
    affinity = config.choice("sessionAffinity", {"ClientIP": True, "None": False})
    seconds = config.integer("sessionAffinityTimeoutSeconds", 1, MAX_AFFINITY_SECONDS)
    limit = config.integer("redirectQosLimit", 0, MAX_UINT32)
    from_host = config.boolean("redirectFromHost", True)
    shadow = config.choice("mode", {"Redirect": False, "Shadow": True})
    percentage = config.integer("percentage", 1, 100)
    skip_backend = config.boolean("skipRedirectFromBackend", True)
    config.boolean("enableOutCluster", False)
    nodes = read_selector(config, "nodeLabelSelector", needed=False) if config.has("nodeLabelSelector") else None
    if read is None or backend is None:
        return None
    frontend, matcher = read
    if isinstance(frontend, AddressFrontend) and namespace:
        _check_namespace(backend, namespace, redirect)
    if frontend.to_ports and ports and not spec.report.faults:
        check_partners(matcher, frontend.to_ports, backend, ports)
    return PolicySpec(
        frontend=frontend,
        backend_selector=selector,
        backend_ports=ports,
        backend_namespace=namespace,
        health_check=health_check,
        enabled=enabled,
        node_selector=nodes,
        qos_limit=limit,
        redirect_from_host=from_host,
        shadow=bool(shadow),
        percentage=100 if percentage is None else percentage,
        skip_redirect_from_backend=skip_backend,
        session_affinity=affinity,
        affinity_seconds=seconds,
    )


def read_frontend(
    fields: Fields, redirect: RedirectSettings
) -> tuple[ServiceFrontend | AddressFrontend, Fields] | None:
    """The frontend and the matcher that holds it; None when there is no usable one. Cilium's policies have the same
    matchers."""
    service = fields.mapping("serviceMatcher", ("serviceName", "namespace", "toPorts"))
    address = fields.mapping("addressMatcher", ("ip", "toPorts"))
    if (service is None) == (address is None):
        wrong = "has both serviceMatcher and addressMatcher" if service else "has no matcher"
        fields.report.fault(fields.path, f"{wrong}; it must have exactly one of serviceMatcher and addressMatcher")
    if service is not None:
        name = service.text("serviceName", DNS_LABEL.fullmatch, _LABEL_RULE, needed=True)
        namespace = service.text("namespace", DNS_LABEL.fullmatch, _LABEL_RULE, needed=True)
        ports = read_ports(service, needed=False, unique_ports=True)
        return ServiceFrontend(service=NamespacedName(namespace, name), to_ports=ports), service
    if address is not None:
        ip = _read_ip(address, redirect)
        ports = read_ports(address, needed=True, unique_ports=True)
        return (AddressFrontend(ip=ip, to_ports=ports), address) if ip else None
    return None


def _read_ip(matcher: Fields, redirect: RedirectSettings) -> Address | None:
    raw = matcher.get("ip")
    if raw is None:
        matcher.fault("ip", "is missing; it must be an IPv4 or IPv6 address")
        return None
    ip: Address | None = None
    wrong, allowed = "is wrong", "the IPv4 or IPv6 address of one host, in quotes"
    try:
        ip = ip_address(raw) if isinstance(raw, str) else None
    except ValueError:
        wrong = "is not an IP address"
    if isinstance(ip, IPv6Address) and ip.scope_id is not None:
        wrong = "has a zone id"
    elif ip is not None and (why := why_unreachable(ip)):
        wrong = why
        if ip.is_loopback or ip.is_link_local:
            allowed = "an address that all Pods can connect to, such as '169.254.20.10' or 'fd00::10'"
    elif ip is not None:
        if any(ip.version == network.version and ip in network for network in redirect.address_cidrs):
            return ip
        cidrs = ", ".join(str(network) for network in redirect.address_cidrs) or "none"
        matcher.fault("ip", f"{ip} is outside redirect.address_cidrs of the agent's configuration (allowed: {cidrs})")
        return None
    matcher.fault("ip", f"{shown(raw)} {wrong}; it must be {allowed}")
    return None


def _check_namespace(backend: Fields, namespace: str, redirect: RedirectSettings) -> None:
    allowed = redirect.address_backend_namespaces
    if ANY_NAMESPACE in allowed or namespace in allowed:
        return
    names = ", ".join(sorted(allowed)) or "none"
    backend.fault(
        "namespace",
        f"{namespace!r} is outside redirect.address_backend_namespaces of the agent's configuration (allowed: {names})",
    )
