"""Every key of the configuration: what its value must be, and which environment variable overrides it
(docs/configuration.md). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

from config.domain.names import DNS_LABEL, DNS_SUBDOMAIN
from config.input.faults import WrongValue
from config.input.values import MAX_UINT32, Reader, boolean, list_of, one_of, text, whole_number
from config.settings import ANY_NAMESPACE


def node_name(raw: object) -> str:
    """In lower case, as the kubelet registers a node, whatever case its host name or --hostname-override has."""
    # Only ASCII, since `lower` turns a few other characters into ASCII letters, such as the Kelvin sign into `k`.
    name = raw.lower() if isinstance(raw, str) and raw.isascii() else ""
    if not DNS_SUBDOMAIN.fullmatch(name) or not all(DNS_LABEL.fullmatch(part) for part in name.split(".")):
        raise WrongValue(raw, "a Kubernetes node name (letters, digits, '-' and '.', at most 253)")
    return name


def absolute_path(raw: object) -> Path:
    if not isinstance(raw, str) or not raw.startswith("/") or "\0" in raw:
        raise WrongValue(raw, "an absolute path")
    return Path(raw)


def cgroup(raw: object) -> str:
    if raw == "auto":
        return "auto"
    try:
        return str(absolute_path(raw))
    except WrongValue:
        raise WrongValue(raw, "auto, or the absolute path of a cgroup2 directory") from None


def bind_address(raw: object) -> str:
    try:
        address = ip_address(text(raw))
    except ValueError:
        raise WrongValue(raw, "an IPv4 or IPv6 address, such as 0.0.0.0 or ::1") from None
    # The server's IPv6 sockets serve IPv6 only, and such a socket can't bind to an IPv4-mapped address.
    return str(address.ipv4_mapped or address) if isinstance(address, IPv6Address) else str(address)


def networks(raw: object) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(list_of(_network, "prefixes")(raw))


def _network(raw: object) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text(raw))
    except ValueError:
        raise WrongValue(raw, "a prefix without host bits, such as 169.254.0.0/16 or fd00::/8") from None


def namespaces(raw: object) -> frozenset[str]:
    return frozenset(list_of(_namespace, f"namespaces; {ANY_NAMESPACE!r} stands for all")(raw))


def _namespace(raw: object) -> str:
    if not isinstance(raw, str) or (raw != ANY_NAMESPACE and not DNS_LABEL.fullmatch(raw)):
        raise WrongValue(raw, f"the name of a namespace, or {ANY_NAMESPACE!r} for all")
    return raw


_MAP_SIZE = whole_number(1, 2**24)
_PORT = whole_number(1, 65535)

READERS: Mapping[str, Reader[Any]] = {
    "node_name": node_name,
    "source.kind": one_of("kubernetes", "directory"),
    "source.directory": absolute_path,
    "source.kubeconfig": text,
    "datapath.cgroup": cgroup,
    "datapath.bpffs": absolute_path,
    "datapath.ipv4": boolean,
    "datapath.ipv6": boolean,
    "datapath.lease_seconds": whole_number(0, 86400),
    "datapath.max_frontends": _MAP_SIZE,
    "datapath.max_backends": _MAP_SIZE,
    "datapath.max_affinity": _MAP_SIZE,
    "redirect.qos_limit": whole_number(0, MAX_UINT32),
    "redirect.address_cidrs": networks,
    "redirect.address_backend_namespaces": namespaces,
    "redirect.close_stale_sockets": boolean,
    "metrics.address": bind_address,
    "metrics.port": _PORT,
    "health.address": bind_address,
    "health.port": _PORT,
    "log.level": one_of("debug", "info", "warning", "error"),
    "log.format": one_of("text", "json"),
    "log.redirects": one_of("none", "passes", "all"),
}
"""`section.name`, or a name at the top -> the reader of its value."""
ENVIRONMENT: Mapping[str, str] = {
    "NODE_NAME": "node_name",
    "SOURCE_KIND": "source.kind",
    "KUBECONFIG": "source.kubeconfig",
    "REDIRECT_QOS_LIMIT": "redirect.qos_limit",
    "LOG_LEVEL": "log.level",
}
"""Variable -> the key that it overrides. An empty variable counts as unset, since templates often leave one empty."""


def names_in(section: str) -> tuple[str, ...]:
    """The names that a section may hold; "" is the top of the file, without the sections themselves."""
    return tuple(name for parent, _, name in (key.rpartition(".") for key in READERS) if parent == section)
