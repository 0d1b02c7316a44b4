"""Loads the configuration: one YAML file, then the environment variables that override it (docs/configuration.md).

Everything is checked before anything is refused, so that the operator sees all faults at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields as fields_of
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from config.input.faults import Report, shown
from config.input.fields import Fields
from config.input.parsing import FileFault, parse_yaml
from config.input.values import MAX_UINT32
from config.keys import ENVIRONMENT, READERS, names_in
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

_ADDRESSES = {"health.address", "health.port", "metrics.address", "metrics.port"}
_SECTIONS: Mapping[str, type] = {
    "source": SourceSettings,
    "datapath": DatapathSettings,
    "redirect": RedirectSettings,
    "metrics": MetricsSettings,
    "health": HealthSettings,
    "log": LogSettings,
}


class ConfigError(Exception):
    """One line for each fault: file or variable, key, what is wrong, what is allowed."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """The settings of `path` (None: the installed file, else the shipped one) and of `environ`.

    Raises ConfigError, with every fault in its text.
    """
    if path is None:
        path = INSTALLED if INSTALLED.exists() else SHIPPED
    report = Report()
    found = _read_keys(_read_file(path), report)
    faults = [f"{path}: {fault}" for fault in (*report.unknown, *report.all_faults())]
    for variable, key in ENVIRONMENT.items():
        if environ.get(variable):
            place = f"environment variable {variable}"
            faults.extend(f"{place}: {fault}" for fault in _read_variable(key, environ[variable], found))
    settings = _build(found)
    # Where an address or port is faulty, the settings have its default, which the operator did not ask for.
    if not any(fault.path in _ADDRESSES for fault in report.faults) and _collide(settings.health, settings.metrics):
        faults.append(f"{path}: {_collision(settings.health, settings.metrics)}")
    if faults:
        raise ConfigError(faults)
    return settings


def _read_file(path: Path) -> dict[Any, Any]:
    """The file's mapping, which is empty for an empty file. Raises ConfigError."""
    try:
        documents = parse_yaml(path.read_bytes())
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}; it must be a readable YAML file"]) from error
    except FileFault as fault:
        raise ConfigError([f"{path}: {fault}"]) from fault
    content = documents[0] if documents else None
    if content is None and len(documents) < 2:
        return {}
    if not isinstance(content, dict) or len(documents) > 1:
        held = shown(content) if len(documents) == 1 else f"{len(documents)} YAML documents"
        raise ConfigError([f"{path}: holds {held}; it must hold one mapping with the keys {', '.join(_allowed(''))}"])
    return content


def _read_keys(content: dict[Any, Any], report: Report) -> dict[str, Any]:
    """Key -> value, for the keys that are given and have a valid value."""
    top = Fields(content, "", report, _allowed(""))
    # A section whose keys are all commented out is null in YAML. It counts as an empty one.
    sections = {name: top.mapping(name, _allowed(name)) or Fields({}, name, report) for name in _SECTIONS} | {"": top}
    found: dict[str, Any] = {}
    for key, reader in READERS.items():
        section, _, name = key.rpartition(".")
        fields = sections[section]
        if key == "node_name" and fields.get(name) == "":
            continue  # an empty name stands for the default, the host name
        if name in dict(fields.entries()) and not fields.has(name):
            fields.fault(name, "is null; it must have a value, or be left out")
        value = fields.read(name, reader)
        if value is not None:
            found[key] = value
    return found


def _allowed(section: str) -> tuple[str, ...]:
    """The names that may stand in a section; "" is the top of the file."""
    return names_in(section) if section else (*names_in(""), *_SECTIONS)


def _read_variable(key: str, raw: str, found: dict[str, Any]) -> tuple[str, ...]:
    """Puts the variable's value in place of the file's. Returns the faults of the variable."""
    report = Report()
    section, _, name = key.rpartition(".")
    value = Fields({name: _from_text(key, raw)}, section, report).read(name, READERS[key])
    if value is not None:
        found[key] = value
    return report.all_faults()


def _from_text(key: str, raw: str) -> object:
    """Variables are text; a key that takes a number in the file takes its digits here."""
    is_number = key == "redirect.qos_limit" and raw.isascii() and raw.isdecimal()
    # Digits beyond any allowed number stay text, since Python refuses to convert thousands of them.
    return int(raw) if is_number and len(raw) <= len(str(MAX_UINT32)) else raw


def _collide(health: HealthSettings, metrics: MetricsSettings) -> bool:
    """Whether both servers would listen on one address and port; 0.0.0.0 and :: each mean all addresses of both
    families."""
    hosts = {ip_address(health.address), ip_address(metrics.address)}
    return health.port == metrics.port and (len(hosts) == 1 or any(host.is_unspecified for host in hosts))


def _collision(health: HealthSettings, metrics: MetricsSettings) -> str:
    return (
        f"health.port: {health.port} is wrong: metrics.port is the same, and health.address {health.address} and "
        f"metrics.address {metrics.address} overlap; it must be another port"
    )


def _build(found: dict[str, Any]) -> Settings:
    top: dict[str, Any] = {key: value for key, value in found.items() if "." not in key}
    for name, section in _SECTIONS.items():
        given = {field.name: f"{name}.{field.name}" for field in fields_of(section)}
        top[name] = section(**{leaf: found[key] for leaf, key in given.items() if key in found})
    return Settings(**top)
