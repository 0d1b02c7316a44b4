"""How the agent asks a backend Pod whether it serves (`spec.backend.healthCheck` of a policy)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from config.domain.addresses import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsProbe:
    """One question, over UDP."""

    name: str
    """An absolute name, with or without the last dot."""
    type: str
    """The name of a record type (RFC 1035), such as A."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpProbe:
    """One connection, which is closed when it is established."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpProbe:
    """One GET request."""

    path: str


Probe: TypeAlias = DnsProbe | TcpProbe | HttpProbe


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    probe: Probe
    port: int
    interval: float
    """Seconds between the starts of two checks of one Pod."""
    timeout: float
    """Seconds; at most `interval`, so that a check has ended before the next one starts."""
    failure_threshold: int
    """Failed checks in a row that put a Pod out of use."""
    success_threshold: int
    """Successful checks in a row that bring it back."""


def protocol_of(probe: Probe) -> Protocol:
    """The protocol that the port of such a check must have."""
    return Protocol.UDP if isinstance(probe, DnsProbe) else Protocol.TCP
