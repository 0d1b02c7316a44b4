"""Ports of frontends and backends: reading `toPorts` lists, and which ports belong together (rule P3). Pure."""

from __future__ import annotations

from collections.abc import Sequence

from config.domain.addresses import Protocol
from config.domain.names import QUALIFIED_NAME
from config.input.fields import Fields
from k8s.objects.model import PortSpec

PROTOCOLS = {str(protocol): protocol for protocol in Protocol}


def partner_ports(
    frontend_ports: Sequence[PortSpec], backend_ports: Sequence[PortSpec]
) -> list[tuple[PortSpec, PortSpec]]:
    """Rule P3: pairs of frontend and backend ports, in the frontend's order; ports without a partner are left out."""
    if len(frontend_ports) == 1 and len(backend_ports) == 1:
        frontend, backend = frontend_ports[0], backend_ports[0]
        return [(frontend, backend)] if frontend.protocol == backend.protocol else []
    by_name = {(backend.name, backend.protocol): backend for backend in backend_ports if backend.name}
    return [
        (frontend, by_name[frontend.name, frontend.protocol])
        for frontend in frontend_ports
        if (frontend.name, frontend.protocol) in by_name
    ]


def read_ports(matcher: Fields, *, needed: bool, unique_ports: bool) -> tuple[PortSpec, ...]:
    """The `toPorts` of a matcher or backend; with `unique_ports` no (port, protocol) may appear twice."""
    entries = matcher.items("toPorts")
    if needed and not entries and (not matcher.has("toPorts") or matcher.get("toPorts") == []):
        matcher.fault("toPorts", "is missing or empty; it must have at least one port")
    ports: list[PortSpec] = []
    names: set[tuple[str, Protocol]] = set()
    numbers: set[tuple[int, Protocol]] = set()
    for path, raw in entries:
        entry = Fields(raw, path, matcher.report, ("port", "protocol", "name"))
        port = _read_port(entry, named=len(entries) > 1)
        if port is None:
            continue
        if port.name and (port.name, port.protocol) in names:
            entry.fault("name", f"{port.name!r} appears twice for {port.protocol}; it must be unique for each protocol")
        if unique_ports and (port.port, port.protocol) in numbers:
            entry.fault("port", f"{port.port}/{port.protocol} appears twice; it must be listed once")
        names.add((port.name, port.protocol))
        numbers.add((port.port, port.protocol))
        ports.append(port)
    return tuple(ports)


def _read_port(entry: Fields, *, named: bool) -> PortSpec | None:
    number = entry.integer("port", 1, 65535, needed=True, quoted=True)
    protocol = entry.choice("protocol", PROTOCOLS) if entry.has("protocol") else Protocol.TCP
    allowed = "up to 63 letters, digits, '-', '_' or '.'"
    if named:
        allowed += ", since there are several ports"
    name = entry.text("name", QUALIFIED_NAME.fullmatch, allowed, needed=named)
    if number is None or protocol is None:
        return None
    return PortSpec(port=number, protocol=protocol, name=name)


def check_partners(frontend: Fields, front: Sequence[PortSpec], backend: Fields, back: Sequence[PortSpec]) -> None:
    """Rule P3: reports each `toPorts` entry without a partner. Both lists must be free of other faults."""
    pairs = partner_ports(front, back)
    for side, ports, other, index in ((frontend, front, backend, 0), (backend, back, frontend, 1)):
        paired = {id(pair[index]) for pair in pairs}
        for position, port in enumerate(ports):
            if id(port) not in paired:
                wanted = f"{port.protocol} and the name {port.name!r}" if len(ports) > 1 or port.name else port.protocol
                side.fault(
                    f"toPorts[{position}]",
                    f"port {port.port}/{port.protocol} has no partner; "
                    f"{other.at('toPorts')} must have an entry with protocol {wanted}",
                )
