"""Reads the configuration: one YAML file, then the environment variables that win over it (docs/configuration.md).

Everything is checked before anything is refused, so that the operator hears of all faults at once.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import yaml

from config import values
from config.settings import (
    DatapathSettings,
    HealthSettings,
    LogSettings,
    MetricsSettings,
    RedirectSettings,
    Settings,
    SourceSettings,
)

INSTALLED = Path("/etc/balancing/agent.yaml")
SHIPPED = Path(__file__).with_name("agent.yaml")

_UINT32_MAX = 2**32 - 1
_MAP_SIZE = values.whole_number(1, 2**24)
_PORT = values.whole_number(1, 65535)
_ADDRESSES = {"health.address", "health.port", "metrics.address", "metrics.port"}

_SECTIONS: Mapping[str, type] = {
    "source": SourceSettings,
    "datapath": DatapathSettings,
    "redirect": RedirectSettings,
    "metrics": MetricsSettings,
    "health": HealthSettings,
    "log": LogSettings,
}
READERS: Mapping[str, values.Reader] = {
    "node_name": values.node_name,
    "source.kind": values.one_of("kubernetes", "directory"),
    "source.directory": values.absolute_path,
    "source.kubeconfig": values.text,
    "datapath.cgroup": values.cgroup,
    "datapath.bpffs": values.absolute_path,
    "datapath.ipv4": values.boolean,
    "datapath.ipv6": values.boolean,
    "datapath.lease_seconds": values.whole_number(0, 86400),
    "datapath.max_frontends": _MAP_SIZE,
    "datapath.max_backends": _MAP_SIZE,
    "datapath.max_affinity": _MAP_SIZE,
    "redirect.qos_limit": values.whole_number(0, _UINT32_MAX),
    "redirect.address_cidrs": values.networks,
    "redirect.address_backend_namespaces": values.namespaces,
    "metrics.address": values.bind_address,
    "metrics.port": _PORT,
    "health.address": values.bind_address,
    "health.port": _PORT,
    "log.level": values.one_of("debug", "info", "warning", "error"),
    "log.format": values.one_of("text", "json"),
}
ENVIRONMENT: Mapping[str, str] = {
    "NODE_NAME": "node_name",
    "SOURCE_KIND": "source.kind",
    "KUBECONFIG": "source.kubeconfig",
    "REDIRECT_QOS_LIMIT": "redirect.qos_limit",
    "LOG_LEVEL": "log.level",
}
"""Variable -> the key it wins over. An empty variable counts as unset: a manifest's template often leaves one."""


class ConfigError(Exception):
    """One line a fault: file or variable, key, what is wrong, what is allowed."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice: YAML forbids it, PyYAML would let the later one win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"key {key.value!r} stands twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """The settings of `path` (None: the installed file, else the shipped one) and of `environ`.

    Raises ConfigError, with every fault in its text.
    """
    if path is None:
        path = INSTALLED if INSTALLED.exists() else SHIPPED
    found: dict[str, Any] = {}
    faults: list[str] = []
    given = _flatten(path, _read_file(path), faults)
    for key, raw in given.items():
        _take(str(path), key, raw, found, faults)
    for variable, key in ENVIRONMENT.items():
        if environ.get(variable):
            _take(f"environment variable {variable}", key, _from_text(key, environ[variable]), found, faults)
    settings = _build(found)
    # One that is wrong is told as such, and its default says nothing.
    if not _ADDRESSES & (given.keys() - found.keys()) and _collide(settings.health, settings.metrics):
        faults.append(f"{path}: {_collision(settings.health, settings.metrics)}")
    if faults:
        raise ConfigError(faults)
    return settings


def _read_file(path: Path) -> dict[Hashable, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)  # noqa: S506  (a SafeLoader)
    except OSError as error:
        raise ConfigError([f"{path}: can't be read: {error.strerror}; allowed: a readable YAML file"]) from error
    # ValueError: not UTF-8, or a date that does not exist; RecursionError: a thousand brackets.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError([f"{path}: is not YAML: {' '.join(str(error).split())}"]) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        allowed = ", ".join(_siblings(""))
        raise ConfigError([f"{path}: holds {values.show(content)}; allowed: a mapping with the keys {allowed}"])
    return content


def _flatten(path: Path, content: dict[Hashable, Any], faults: list[str]) -> dict[str, Any]:
    """`section.key` -> raw value, of the keys that we know; the others become faults."""
    flat: dict[str, Any] = {}
    for name, raw in content.items():
        if name not in _SECTIONS:
            _sort_in(path, "", name, raw, flat, faults)
        elif isinstance(raw, dict):
            for inner, value in raw.items():
                _sort_in(path, f"{name}.", inner, value, flat, faults)
        elif raw is not None:  # a section whose keys are all commented out is an empty one
            allowed = ", ".join(_siblings(f"{name}."))
            faults.append(
                f"{path}: {name}: {values.show(raw)} is not allowed; allowed: a mapping with the keys {allowed}"
            )
    return flat


def _sort_in(path: Path, prefix: str, name: Hashable, raw: Any, flat: dict[str, Any], faults: list[str]) -> None:
    key = f"{prefix}{name}"
    siblings = _siblings(prefix)
    if name in siblings:
        flat[key] = raw
        return
    near = get_close_matches(str(name), siblings, n=1)
    hint = f" (did you mean {prefix}{near[0]}?)" if near else ""
    faults.append(f"{path}: {key}: unknown key{hint}; allowed: {', '.join(siblings)}")


def _siblings(prefix: str) -> list[str]:
    """Names that may stand beside each other below `prefix`; "" is the top of the file."""
    if not prefix:
        return ["node_name", *_SECTIONS]
    return [key.removeprefix(prefix) for key in READERS if key.startswith(prefix)]


def _take(place: str, key: str, raw: object, found: dict[str, Any], faults: list[str]) -> None:
    if key == "node_name" and raw == "":
        return  # as shipped: the host name
    try:
        found[key] = READERS[key](raw)
    except values.WrongValue as wrong:
        faults.append(f"{place}: {key}: {wrong}")


def _from_text(key: str, raw: str) -> object:
    """Variables are text; what holds a number in the file must read as one here too."""
    is_number = key == "redirect.qos_limit" and raw.isascii() and raw.isdecimal()
    # Longer than any number that is allowed: left as text, since Python refuses to convert thousands of digits.
    return int(raw) if is_number and len(raw) <= len(str(_UINT32_MAX)) else raw


def _collide(health: HealthSettings, metrics: MetricsSettings) -> bool:
    """Both servers listen at once; 0.0.0.0 and :: each mean all addresses of both families."""
    hosts = {ip_address(health.address), ip_address(metrics.address)}
    return health.port == metrics.port and (len(hosts) == 1 or any(host.is_unspecified for host in hosts))


def _collision(health: HealthSettings, metrics: MetricsSettings) -> str:
    return (
        f"health.port: {health.port} is not allowed: metrics.port is the same, and health.address {health.address} "
        f"and metrics.address {metrics.address} overlap; allowed: another port for one of the two"
    )


def _build(found: dict[str, Any]) -> Settings:
    top: dict[str, Any] = {key: value for key, value in found.items() if "." not in key}
    for name, section in _SECTIONS.items():
        prefix = f"{name}."
        top[name] = section(
            **{key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}
        )
    return Settings(**top)
