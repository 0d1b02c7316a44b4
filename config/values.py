"""How one value of the configuration is read: from what YAML gave to what the settings hold, or `WrongValue`."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any, TypeAlias

from config.settings import ANY_NAMESPACE

Reader: TypeAlias = Callable[[object], Any]

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_NAMESPACE = re.compile(_LABEL)
_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_SUBDOMAIN_LENGTH = 253

_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = 80


class WrongValue(ValueError):
    """Its text says what is wrong and what is allowed."""

    def __init__(self, raw: object, allowed: str) -> None:
        super().__init__(f"{show(raw)} is not allowed; allowed: {allowed}")


def show(raw: object) -> str:
    """A value as the operator wrote it in YAML, cut when it is long."""
    if raw is None:
        return "nothing (null)"
    return str(raw).lower() if isinstance(raw, bool) else _shown.repr(raw)


def text(raw: object) -> str:
    if not isinstance(raw, str):
        raise WrongValue(raw, "text")
    return raw


def boolean(raw: object) -> bool:
    if not isinstance(raw, bool):
        raise WrongValue(raw, "true or false")
    return raw


def whole_number(lowest: int, highest: int) -> Reader:
    def read(raw: object) -> int:
        # bool is a subclass of int, and `port: yes` is a mistake.
        if not isinstance(raw, int) or isinstance(raw, bool) or not lowest <= raw <= highest:
            raise WrongValue(raw, f"a whole number from {lowest} to {highest}")
        return raw

    return read


def one_of(*words: str) -> Reader:
    def read(raw: object) -> str:
        if not isinstance(raw, str) or raw not in words:
            raise WrongValue(raw, " or ".join(words))
        return raw

    return read


def node_name(raw: object) -> str:
    """In small letters, as the kubelet registers a node, whatever case its host name or --hostname-override has."""
    allowed = "a Kubernetes node name (letters, digits, '-' and '.', at most 253)"
    if not isinstance(raw, str) or len(raw) > _SUBDOMAIN_LENGTH or not raw.isascii():
        raise WrongValue(raw, allowed)
    name = raw.lower()
    if not _SUBDOMAIN.fullmatch(name):
        raise WrongValue(raw, allowed)
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
    # A socket that listens on one IPv6 address takes no mapped one.
    return str(address.ipv4_mapped or address) if isinstance(address, IPv6Address) else str(address)


def _network(raw: object) -> Any:
    try:
        return ip_network(text(raw))
    except ValueError:
        raise WrongValue(raw, "a prefix without host bits, such as 169.254.0.0/16 or fd00::/8") from None


def _namespace(raw: object) -> str:
    if not isinstance(raw, str) or (raw != ANY_NAMESPACE and not _NAMESPACE.fullmatch(raw)):
        raise WrongValue(raw, f"the name of a namespace, or {ANY_NAMESPACE!r} for all")
    return raw


def _items(raw: object, read: Reader, allowed: str) -> list[Any]:
    if not isinstance(raw, list):
        raise WrongValue(raw, f"a list of {allowed}")
    return [read(item) for item in raw]


def networks(raw: object) -> tuple[Any, ...]:
    return tuple(_items(raw, _network, "prefixes"))


def namespaces(raw: object) -> frozenset[str]:
    return frozenset(_items(raw, _namespace, f"namespaces; {ANY_NAMESPACE!r} stands for all"))
