"""Reading IP addresses, and which of them can be frontends or backends. Pure."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from config.domain.addresses import Address

_BROADCAST = IPv4Address("255.255.255.255")


def read_address(raw: object) -> Address | None:
    """None for what is not an address, and for one with a zone."""
    try:
        return ip_address(raw) if isinstance(raw, str) and "%" not in raw else None
    except ValueError:
        return None


def why_unreachable(address: Address) -> str:
    """Why a Pod can't reach another Pod at this address, as a phrase that follows the address; "" if it can.

    IPv4 link-local addresses are allowed: unlike those of IPv6 they work without naming an interface, and node-local
    DNS uses one.
    """
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        inner = why_unreachable(address.ipv4_mapped)
        return inner or f"is an IPv4 address mapped to IPv6 (write {address.ipv4_mapped})"
    if address.is_unspecified:
        return "is the unspecified address"
    if address.is_loopback:
        return "is a loopback address, at which every Pod reaches itself"
    if address.is_multicast or address == _BROADCAST:
        return "is a multicast or broadcast address"
    if isinstance(address, IPv6Address) and address.is_link_local:
        return "is a link-local IPv6 address, which means nothing without an interface"
    return ""
