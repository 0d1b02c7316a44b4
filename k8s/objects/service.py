"""Raw Service -> `Service`: its cluster IPs, TCP and UDP ports, and session affinity (P1, P13). Pure."""

from __future__ import annotations

from config.domain.addresses import Address
from config.input.faults import Report, WrongValue
from config.input.fields import Fields
from k8s.objects.addresses import read_address
from k8s.objects.metadata import ObjectError, read_metadata, read_namespaced_name, refuse_faulty
from k8s.objects.model import DEFAULT_AFFINITY_SECONDS, MAX_AFFINITY_SECONDS, PortSpec, Service
from k8s.objects.ports import PROTOCOLS


def parse_service(raw: object) -> Service:
    """Raises ObjectError."""
    report = Report()
    fields = Fields(raw, "", report)
    metadata = read_metadata(fields)
    key = read_namespaced_name(metadata)
    spec = fields.required("spec") or Fields({}, "spec", Report())
    by_client = spec.choice("sessionAffinity", {"ClientIP": True, "None": False}) or False
    service = Service(
        key=key,
        cluster_ips=() if spec.get("type") == "ExternalName" else _read_cluster_ips(spec),
        ports=_read_ports(spec),
        client_ip_affinity=by_client,
        affinity_seconds=_read_affinity_seconds(spec),
    )
    refuse_faulty("Service", raw, report)
    return service


def read_service(raw: object) -> Service:
    """As `parse_service`, but a faulty Service is returned without addresses and with its faults, if at least its name
    is valid. Raises ObjectError for one without a valid name."""
    try:
        return parse_service(raw)
    except ObjectError as error:
        report = Report()
        key = read_namespaced_name(Fields(raw, "", report).mapping("metadata") or Fields({}, "metadata", report))
        if report.faults:
            raise
        return Service(key=key, faults=error.faults)


def _read_cluster_ips(spec: Fields) -> tuple[Address, ...]:
    """Of both families, in order. `None` (headless) and "" (not assigned yet) are not addresses."""
    listed = spec.items("clusterIPs") or [(spec.at("clusterIP"), spec.get("clusterIP"))]
    addresses: list[Address] = []
    for path, raw in listed:
        if raw in (None, "", "None"):
            continue
        address = read_address(raw)
        if address is None:
            spec.report.fault(path, str(WrongValue(raw, "an IP address or None")))
        elif address not in addresses:
            addresses.append(address)
    return tuple(addresses)


def _read_ports(spec: Fields) -> tuple[PortSpec, ...]:
    ports = []
    for path, raw in spec.items("ports"):
        entry = Fields(raw, path, spec.report)
        number = entry.integer("port", 1, 65535, needed=True)
        name = entry.text("name", lambda _: True, "a string")
        protocol = entry.text("protocol", lambda _: True, "a string") or "TCP"
        if number is not None and protocol in PROTOCOLS:
            ports.append(PortSpec(port=number, protocol=PROTOCOLS[protocol], name=name))
    return tuple(ports)


def _read_affinity_seconds(spec: Fields) -> int:
    config = spec.mapping("sessionAffinityConfig")
    client_ip = config.mapping("clientIP") if config else None
    seconds = client_ip.integer("timeoutSeconds", 1, MAX_AFFINITY_SECONDS) if client_ip else None
    return seconds or DEFAULT_AFFINITY_SECONDS
