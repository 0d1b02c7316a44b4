"""The Corefile of NodeLocal DNSCache, changed for a cache on the Pod network. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeGuard

from config.domain.names import DNS_SUBDOMAIN
from k8s.objects.addresses import read_address

_ZONE = re.compile(r"^([^\s{}:]+)(?::53)?\s*\{", re.MULTILINE)
"""The first zone of a server block."""
_PLACEHOLDER = re.compile(r"__PILLAR__[A-Z_]+__")
_FILLED_BY_NODE_CACHE = frozenset({"__PILLAR__CLUSTER__DNS__", "__PILLAR__UPSTREAM__SERVERS__"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Corefile:
    text: str
    domain: str
    """The cluster's domain, as a server block names it; "" when none does."""
    forwards_to: frozenset[str]
    """The IP addresses to which it forwards."""


def is_corefile(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and re.search(r"^\s*(bind|forward)\s", value, re.MULTILINE) is not None


def on_pod_network(text: str) -> Corefile:
    """The Corefile without the node's addresses. Without `bind`, CoreDNS listens at all addresses of the Pod."""
    zones = [each for each in _ZONE.findall(text) if not each.endswith(("arpa", "arpa."))]
    forwards_to: set[str] = set()
    lines = []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["bind"]:
            continue
        if words[:1] == ["forward"]:
            forwards_to |= {word for word in words[2:] if read_address(word)}
        lines.append(re.sub(r"^(\s*health)\s+\S*?(:\d+)(\s*\{)?$", r"\1 \2\3", line))
    return Corefile(
        text="\n".join(lines) + "\n",
        domain=next((each for each in zones if DNS_SUBDOMAIN.fullmatch(each)), ""),
        forwards_to=frozenset(forwards_to),
    )


def has_placeholder(text: str) -> bool:
    """Whether the text has any placeholder of the template of NodeLocal DNSCache."""
    return _PLACEHOLDER.search(text) is not None


def placeholders_in(text: str) -> frozenset[str]:
    """Those that somebody has to fill in. node-cache itself fills in the others when it starts."""
    return frozenset(_PLACEHOLDER.findall(text)) - _FILLED_BY_NODE_CACHE
