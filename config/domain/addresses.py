"""What clients call and where calls go: addresses, ports and protocols."""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address


class Protocol(StrEnum):
    """The transport protocols that we redirect, spelled as in Kubernetes objects."""

    TCP = "TCP"
    UDP = "UDP"

    @property
    def number(self) -> int:
        """As IANA assigns it, and as the kernel knows it."""
        return _NUMBERS[self]

    @classmethod
    def of_number(cls, number: int) -> Protocol:
        """Raises KeyError for a protocol that we do not redirect."""
        return _BY_NUMBER[number]


_NUMBERS = {Protocol.TCP: 6, Protocol.UDP: 17}
_BY_NUMBER = {number: protocol for protocol, number in _NUMBERS.items()}


class Endpoint(NamedTuple):
    """An address and port; prints as `10.0.0.5:53` or `[fd00::5]:53`."""

    address: Address
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


class Frontend(NamedTuple):
    """What clients call; prints as `10.96.0.10:53/UDP`."""

    address: Address
    port: int
    protocol: Protocol

    def __str__(self) -> str:
        return f"{Endpoint(self.address, self.port)}/{self.protocol}"


def endpoint_order(endpoint: Endpoint) -> tuple[int, int, int]:
    """Sort key of a frontend's backends, so that equal sets are equal tuples."""
    return endpoint.address.version, int(endpoint.address), endpoint.port
