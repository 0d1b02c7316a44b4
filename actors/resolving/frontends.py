"""Which frontends a policy has (rules P1, P2 and P3), and why some of its entries give none. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

from actors.resolving.wording import also
from config.domain.addresses import Address, Endpoint, Frontend, Protocol
from config.domain.ids import NamespacedName, PolicyKind
from config.settings import DatapathSettings
from k8s.objects.addresses import why_unreachable
from k8s.objects.model import AddressFrontend, Policy, PortSpec, Service, ServiceFrontend
from k8s.objects.ports import partner_ports

_API_SERVICE = NamespacedName("default", "kubernetes")
Servers: TypeAlias = frozenset[tuple[Address, int]]
"""Addresses and ports of the API server in use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontends:
    """The frontends of a policy, each with the backend port that belongs to it."""

    ports: tuple[tuple[Frontend, int], ...] = ()
    claimed: frozenset[Frontend] = frozenset()
    """The frontends of both address families, including a family that this node's configuration turns off, because all
    nodes must decide conflicts alike (P8)."""
    why_none: str = ""
    """One sentence that says why there are no frontends; "" when there are some."""
    remark: str = ""
    """What else an operator must know, such as entries that give no frontend; "" for nothing."""

    @property
    def named(self) -> tuple[Frontend, ...]:
        """Those that are claimed, sorted, so that conditions with the same frontends are equal."""
        return tuple(sorted(self.claimed, key=str))


def named_service(policy: Policy) -> NamespacedName | None:
    """The Service that a policy of either kind matches."""
    if policy.spec is None or not isinstance(policy.spec.frontend, ServiceFrontend):
        return None
    return policy.spec.frontend.service


def find_frontends(policy: Policy, service: Service | None, datapath: DatapathSettings) -> Frontends:
    """Rules P1, P2 and P3, for the address families that the configuration turns on."""
    spec = policy.spec
    if spec is None:
        return Frontends()
    matcher = spec.frontend
    addresses: tuple[Address, ...]
    if isinstance(matcher, AddressFrontend):
        addresses, ports, remark = (matcher.ip,), matcher.to_ports, ""
    else:
        addresses, unusable = _service_addresses(matcher.service, service)
        if service is None or not addresses:
            return Frontends(why_none=unusable)
        ports, missing = _service_ports(matcher, service)
        if not ports:
            return Frontends(why_none=missing or f"Service {matcher.service} has no TCP or UDP port")
        remark = "; ".join(filter(None, (missing, unusable)))
    pairs: Iterable[tuple[PortSpec, int]]
    if policy.key.kind == PolicyKind.BALANCING:
        pairs = [(port, 0) for port in ports]  # it claims frontends, and another product knows its backends
    else:
        named = matcher.to_ports or ports
        pairs = [(front, back.port) for front, back in partner_ports(named, spec.backend_ports) if front in ports]
    everywhere = tuple((Frontend(ip, port.port, port.protocol), back) for ip in addresses for port, back in pairs)
    if not everywhere:
        return Frontends(why_none=remark or "no port of the Service has a partner in spec.backend.toPorts")
    claimed = frozenset(frontend for frontend, _ in everywhere)
    served = {4: datapath.ipv4, 6: datapath.ipv6}
    found = tuple((frontend, back) for frontend, back in everywhere if served[frontend.address.version])
    if not found:
        families = " and ".join(sorted({f"IPv{ip.version}" for ip in addresses}))
        why = f"its addresses are {families}, which datapath.ipv4 and datapath.ipv6 turn off here"
        return Frontends(claimed=claimed, why_none=why)
    return Frontends(ports=found, claimed=claimed, remark=remark)


def _service_addresses(name: NamespacedName, service: Service | None) -> tuple[tuple[Address, ...], str]:
    """Returns the cluster IPs that can be frontends (P1, P17), and a remark about the others, or why there are none."""
    if service is None:
        return (), f"Service {name} does not exist"
    if service.faults:
        return (), f"Service {name} cannot be used: {'; '.join(service.faults)}"
    if not service.cluster_ips:
        return (), f"Service {name} has no cluster IP (it is headless or an ExternalName)"
    reasons = {address: why_unreachable(address) for address in service.cluster_ips}
    unusable = [f"{address} {why}" for address, why in reasons.items() if why]
    remark = f"a cluster IP of Service {name} cannot be a frontend: {', '.join(unusable)}" if unusable else ""
    return tuple(address for address, why in reasons.items() if not why), remark


def _service_ports(matcher: ServiceFrontend, service: Service) -> tuple[tuple[PortSpec, ...], str]:
    """P1: all ports of the Service, or those of `toPorts` that it has, and a remark about those that it lacks."""
    if not matcher.to_ports:
        return service.ports, ""
    there = {(port.port, port.protocol) for port in service.ports}
    missing = [f"{port.port}/{port.protocol}" for port in matcher.to_ports if (port.port, port.protocol) not in there]
    remark = f"Service {service.key} has no port {', '.join(missing)}" if missing else ""
    return tuple(port for port in matcher.to_ports if (port.port, port.protocol) in there), remark


def with_server_remark(policy: Policy, frontends: Frontends, servers: Servers | None) -> Frontends:
    """Adds a remark when a frontend is the address of the API server (`servers`; None when there is no API server).
    The agent's own calls are never redirected (P17), but those of all other clients are."""
    if servers is None or policy.spec is None:
        return frontends
    matcher = policy.spec.frontend
    is_service = isinstance(matcher, ServiceFrontend) and matcher.service == _API_SERVICE
    addresses = sorted(
        str(Endpoint(frontend.address, frontend.port))
        for frontend, _ in frontends.ports
        if frontend.protocol == Protocol.TCP and (is_service or (frontend.address, frontend.port) in servers)
    )
    if not addresses:
        return frontends
    are = "is an address" if len(addresses) == 1 else "are addresses"
    remark = f"{', '.join(addresses)} {are} of the API server: all its clients but the agents are sent to the backends"
    return replace(frontends, remark=frontends.remark + also(remark) if frontends.remark else remark)
