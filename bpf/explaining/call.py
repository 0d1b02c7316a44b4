"""The call and the client that a user names on the command line. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from config.domain.addresses import Endpoint, Frontend, Protocol
from config.domain.names import DNS_LABEL, DNS_SUBDOMAIN

_TO = re.compile(r"(?:\[(?P<ipv6>[^\]]*)\]|(?P<ipv4>[^:\[\]]*)):(?P<port>[0-9]{1,5})/(?P<protocol>[A-Za-z]+)")
_TO_ALLOWED = (
    "IP:PORT/PROTO, such as 10.96.0.10:53/UDP or [fd00::10]:80/TCP, with TCP or UDP and a port from 1 to 65535"
)
_FROM_ALLOWED = "NAMESPACE/POD, host, pid:N or cgroup:PATH"


class WrongUsage(ValueError):
    """What is wrong with an argument, and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    frontend: Frontend
    """As the maps have it: a mapped address is an IPv4 address."""
    mapped: bool
    """Whether the address was given as a mapped one: then the socket is an IPv6 socket."""

    @property
    def hooks(self) -> tuple[str, ...]:
        """The hooks that see such a call. An unconnected datagram to a mapped address is sent by IPv4."""
        family = self.frontend.address.version
        connect = f"connect{6 if self.mapped else family}"
        return (connect, f"sendmsg{family}") if self.frontend.protocol == Protocol.UDP else (connect,)

    def __str__(self) -> str:
        if not self.mapped:
            return str(self.frontend)
        mapped = Endpoint(IPv6Address(f"::ffff:{self.frontend.address}"), self.frontend.port)
        return f"{mapped}/{self.frontend.protocol}"


def parse_call(text: str) -> Call:
    """Raises WrongUsage."""
    call = _read_call(text)
    if call is None:
        msg = f"--to: {text!r} is wrong; it must be {_TO_ALLOWED}"
        raise WrongUsage(msg)
    return call


def _read_call(text: str) -> Call | None:
    found = _TO.fullmatch(text)
    if found is None:
        return None
    try:
        address = ip_address(found["ipv4"] if found["ipv6"] is None else found["ipv6"])
        port, protocol = int(found["port"]), Protocol(found["protocol"].upper())
    except ValueError:
        return None
    if (address.version == 4) != (found["ipv6"] is None) or not 1 <= port <= 65535:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return Call(frontend=Frontend(mapped or address, port, protocol), mapped=mapped is not None)


class ClientKind(StrEnum):
    POD = "pod"
    HOST = "host"
    PROCESS = "pid"
    CGROUP = "cgroup"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientName:
    """Who calls, as the user names it."""

    kind: ClientKind
    namespace: str = ""
    name: str = ""
    """Of a Pod."""
    pid: int = 0
    path: Path = Path()
    """Of a cgroup: its directory, or its path below the cgroup2 mount."""
    text: str
    """As the user wrote it."""


def parse_client(text: str) -> ClientName:
    """Raises WrongUsage."""
    kind, colon, value = text.partition(":")
    if text == "host":
        return ClientName(kind=ClientKind.HOST, text=text)
    if kind == "pid" and value.isascii() and value.isdecimal() and 0 < len(value) < 11:
        return ClientName(kind=ClientKind.PROCESS, pid=int(value), text=text)
    if kind == "cgroup" and value:
        return ClientName(kind=ClientKind.CGROUP, path=Path(value), text=text)
    namespace, slash, name = text.partition("/")
    if not colon and slash and DNS_LABEL.fullmatch(namespace) and DNS_SUBDOMAIN.fullmatch(name):
        return ClientName(kind=ClientKind.POD, namespace=namespace, name=name, text=text)
    msg = f"--from: {text!r} is wrong; it must be {_FROM_ALLOWED}"
    raise WrongUsage(msg)
