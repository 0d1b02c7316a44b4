"""The configuration: defaults, what wins, and how wrong values are reported."""

from __future__ import annotations

import dataclasses
import socket
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import load as loading
from config.keys import ENVIRONMENT, READERS
from config.load import SHIPPED, ConfigError, load
from config.settings import Settings


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """Writes the text of a configuration file, and gives its path."""

    def write(text: str) -> Path:
        path = tmp_path / "agent.yaml"
        path.write_text(text)
        return path

    return write


def _keys(settings: Settings) -> set[str]:
    keys = set()
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        inner = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
        keys |= {f"{field.name}.{leaf.name}" for leaf in inner} or {field.name}
    return keys


def _value(settings: Settings, key: str) -> object:
    value: object = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _faults(path: Path | None, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {})
    return str(caught.value).splitlines()


def test_every_setting_has_a_reader() -> None:
    assert set(READERS) == _keys(Settings())


def test_the_shipped_file_names_every_key_and_equals_the_defaults() -> None:
    content = yaml.safe_load(SHIPPED.read_text())
    leaves = {f"{name}.{key}" for name, part in content.items() if isinstance(part, dict) for key in part}
    assert leaves | {"node_name"} == set(READERS)
    assert load(SHIPPED, {}) == Settings()


@pytest.mark.parametrize("text", ["", "# nothing\n", "log:\n", "{}", 'node_name: ""'])
def test_what_is_left_out_has_its_default(written: Any, text: str) -> None:
    assert load(written(text), {}) == Settings(node_name=socket.gethostname().lower())


def test_the_host_name_is_in_lower_case_as_the_kubelet_registers_the_node(
    written: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "NODE-7.Example")
    assert load(written(""), {}).node_name == "node-7.example"


def test_without_a_path_the_installed_file_counts_before_the_shipped_one(
    written: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(loading, "INSTALLED", tmp_path / "absent.yaml")
    assert load(None, {}) == Settings()
    monkeypatch.setattr(loading, "INSTALLED", written("node_name: installed"))
    assert load(None, {}).node_name == "installed"


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("NODE_NAME", "node-7.example", "node-7.example"),
        ("NODE_NAME", "NODE-7.Example", "node-7.example"),
        ("SOURCE_KIND", "directory", "directory"),
        ("KUBECONFIG", "/root/a:/root/b", "/root/a:/root/b"),
        ("REDIRECT_QOS_LIMIT", "250", 250),
        ("LOG_LEVEL", "debug", "debug"),
    ],
)
def test_the_environment_wins_over_the_file(written: Any, variable: str, text: str, value: object) -> None:
    path = written(
        "node_name: f\nsource: {kind: kubernetes, kubeconfig: /f}\nredirect: {qos_limit: 1}\nlog: {level: error}"
    )
    assert _value(load(path, {variable: text}), ENVIRONMENT[variable]) == value
    assert load(path, {variable: ""}) == load(path, {}), "an empty variable is an unset one"


def test_the_environment_variables_are_these() -> None:
    assert set(ENVIRONMENT) == {"NODE_NAME", "SOURCE_KIND", "KUBECONFIG", "REDIRECT_QOS_LIMIT", "LOG_LEVEL"}


@pytest.mark.parametrize(
    ("key", "raw", "value"),
    [
        ("metrics.port", "1", 1),
        ("metrics.port", "65535", 65535),
        ("health.address", '"::1"', "::1"),
        ("redirect.qos_limit", "4294967295", 4294967295),
        ("datapath.lease_seconds", "0", 0),
        ("datapath.lease_seconds", "86400", 86400),
        ("datapath.max_frontends", "1", 1),
        ("datapath.max_backends", "16777216", 16777216),
        ("datapath.cgroup", "/sys/fs/cgroup/kubepods", "/sys/fs/cgroup/kubepods"),
        ("datapath.bpffs", "/run/bpf", Path("/run/bpf")),
        ("datapath.ipv6", "false", False),
        ("redirect.address_cidrs", "[169.254.0.0/16]", (ip_network("169.254.0.0/16"),)),
        ("redirect.address_cidrs", "[]", ()),
        ("redirect.address_backend_namespaces", "[kube-system, dns]", frozenset({"kube-system", "dns"})),
        ("node_name", "a" * 63, "a" * 63),
        ("node_name", "Node-1", "node-1"),
        ("health.address", "::ffff:127.0.0.1", "127.0.0.1"),
        ("log.format", "json", "json"),
        ("log.redirects", "passes", "passes"),
    ],
)
def test_a_value_at_the_edge_of_what_is_allowed_is_taken(written: Any, key: str, raw: str, value: object) -> None:
    assert _value(load(written(_yaml(key, raw)), {}), key) == value


@pytest.mark.parametrize(
    ("key", "raw", "allowed"),
    [
        ("node_name", "Node_1", "a Kubernetes node name"),
        ("node_name", "\u212a8s", "a Kubernetes node name"),  # the kelvin sign, which is a k in lower case
        ("node_name", "[a]", "a Kubernetes node name"),
        ("node_name", "a" * 64, "a Kubernetes node name"),
        ("node_name", ".".join(["a" * 63] * 4), "a Kubernetes node name"),
        ("source.kind", "etcd", "kubernetes or directory"),
        ("source.kind", "1", "kubernetes or directory"),
        ("source.directory", "manifests", "an absolute path"),
        ("source.kubeconfig", "7", "a string"),
        ("datapath.cgroup", "kubepods", "auto, or the absolute path"),
        ("datapath.bpffs", "null", "is null; it must have a value, or be left out"),
        ("datapath.ipv4", "1", "true or false"),
        ("datapath.ipv6", '"yes"', "true or false"),
        ("datapath.lease_seconds", "-1", "from 0 to 86400"),
        ("datapath.lease_seconds", "86401", "from 0 to 86400"),
        ("datapath.lease_seconds", "1.5", "from 0 to 86400"),
        ("datapath.max_frontends", "0", "from 1 to 16777216"),
        ("datapath.max_backends", "16777217", "from 1 to 16777216"),
        ("datapath.max_affinity", "true", "from 1 to 16777216"),
        ("redirect.qos_limit", "4294967296", "from 0 to 4294967295"),
        ("redirect.qos_limit", '"5"', "from 0 to 4294967295"),
        ("redirect.address_cidrs", "0.0.0.0/0", "a list of prefixes"),
        ("redirect.address_cidrs", "[10.0.0.1/8]", "a prefix without host bits"),
        ("redirect.address_cidrs", "[167772160]", "a prefix without host bits"),
        ("redirect.address_backend_namespaces", "[Kube_System]", "the name of a namespace"),
        ("redirect.address_backend_namespaces", '"*"', "a list of namespaces"),
        ("metrics.address", "localhost", "an IPv4 or IPv6 address"),
        ("metrics.port", "0", "from 1 to 65535"),
        ("metrics.port", "65536", "from 1 to 65535"),
        ("health.address", "16777343", "an IPv4 or IPv6 address"),
        ("health.port", "true", "from 1 to 65535"),
        ("health.port", '"5810"', "from 1 to 65535"),
        ("log.level", "loud", "debug or info or warning or error"),
        ("log.format", "xml", "text or json"),
        ("log.redirects", "some", "none or passes or all"),
    ],
)
def test_a_wrong_value_is_reported_with_file_key_and_what_is_allowed(
    written: Any, key: str, raw: str, allowed: str
) -> None:
    path = written(_yaml(key, raw))
    (fault,) = _faults(path)
    place, text = fault.removeprefix(f"{path}: ").split(": ", 1)
    assert place in (key, f"{key}[0]")
    assert "; it must " in text
    assert allowed in fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("metrics: {prt: 1}", "metrics.prt: is unknown (did you mean port?); it must be one of address, port"),
        ("nodename: a", "nodename: is unknown (did you mean node_name?); it must be one of node_name, source"),
        ("zzz: 1", "zzz: is unknown; it must be one of node_name, source"),
        ("7: 1", "7: is unknown; it must be one of node_name, source"),
        ("log.level: debug", "log.level: is unknown"),
        ("log: debug", "log: 'debug' is wrong; it must be a mapping with the keys level, format"),
    ],
)
def test_an_unknown_key_is_refused_and_a_near_one_named(written: Any, text: str, fault: str) -> None:
    path = written(text)
    (line,) = _faults(path)
    assert line.startswith(f"{path}: {fault}")


def test_all_faults_come_in_one_message(written: Any) -> None:
    path = written("logs: {}\nmetrics: {port: 0, adress: x}\nlog: {level: loud}\n")
    faults = _faults(path, {"LOG_LEVEL": "quiet", "REDIRECT_QOS_LIMIT": "many", "NODE_NAME": "A_"})
    assert [fault.split(": ")[:2] for fault in faults] == [
        [str(path), "logs"],
        [str(path), "metrics.adress"],
        [str(path), "metrics.port"],
        [str(path), "log.level"],
        ["environment variable NODE_NAME", "node_name"],
        ["environment variable REDIRECT_QOS_LIMIT", "redirect.qos_limit"],
        ["environment variable LOG_LEVEL", "log.level"],
    ]


BOTH_SERVERS = [
    ("metrics: {port: 7000}\nhealth: {port: 7000}", True),
    ("health: {port: 5811}", True),
    ("metrics: {port: 5810}", True),
    ("health: {address: '::', port: 5811}\nmetrics: {address: 127.0.0.1}", True),
    ("health: {address: '::1', port: 5811}", True),
    ("health: {address: 127.0.0.1, port: 5811}\nmetrics: {address: 127.0.0.1}", True),
    ("health: {address: 127.0.0.1, port: 5811}\nmetrics: {address: '::ffff:127.0.0.1'}", True),
    ("health: {address: '::1', port: 5811}\nmetrics: {address: '0:0:0:0:0:0:0:1'}", True),
    ("health: {address: 127.0.0.1, port: 5811}\nmetrics: {address: 127.0.0.2}", False),
    ("health: {address: '::1', port: 5811}\nmetrics: {address: 127.0.0.1}", False),
    ("health: {port: 5812}", False),
]


@pytest.mark.parametrize(("text", "collide"), BOTH_SERVERS, ids=[row[0].replace("\n", ", ") for row in BOTH_SERVERS])
def test_the_two_servers_may_not_share_an_address_and_port(written: Any, text: str, collide: bool) -> None:
    path = written(text)
    if not collide:
        load(path, {})
        return
    (fault,) = _faults(path)
    assert fault.startswith(f"{path}: health.port: ")
    assert "metrics.port" in fault and fault.endswith("it must be another port")


def test_a_shared_port_is_reported_with_all_other_faults_and_not_guessed_from_a_wrong_value(written: Any) -> None:
    path = written("health: {port: 5811}\nlog: {level: loud}")
    assert [fault.split(": ")[1] for fault in _faults(path)] == ["log.level", "health.port"]
    path = written("health: {port: 5811}\nmetrics: {port: 0}")
    assert [fault.split(": ")[1] for fault in _faults(path)] == ["metrics.port"]


@pytest.mark.parametrize("text", ["-1", "1.5", "0x10", " 5", "٣", "9" * 5000])
def test_a_limit_in_the_environment_must_read_as_a_number(written: Any, text: str) -> None:
    (fault,) = _faults(written(""), {"REDIRECT_QOS_LIMIT": text})
    assert "a whole number from 0 to 4294967295" in fault


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"a: [", "line 2: does not parse"),
        (b"\xff\xfe\x00", "line 1: is not UTF-8 text"),
        (b"a: 2026-99-99", "does not parse"),
        (b"[" * 5000, "is nested too deeply"),
        (b"log: {}\nlog: {}\n", "line 2: does not parse: key 'log' appears twice"),
        (b"? [a]\n: 1", "does not parse"),
        (b"- a\n", "holds a list; it must hold one mapping with the keys node_name, source"),
        (b"text", "holds 'text'; it must hold one mapping with the keys node_name, source"),
        (b"--- {}\n--- {}\n", "holds 2 YAML documents; it must hold one mapping"),
    ],
)
def test_a_file_that_is_not_a_mapping_is_refused_in_one_line(tmp_path: Path, content: bytes, fault: str) -> None:
    path = tmp_path / "agent.yaml"
    path.write_bytes(content)
    (line,) = _faults(path)
    assert line.startswith(f"{path}: ")
    assert fault in line


def test_a_file_that_is_missing_or_not_a_file_is_refused(tmp_path: Path) -> None:
    assert "No such file" in _faults(tmp_path / "absent.yaml")[0]
    assert "directory" in _faults(tmp_path)[0]


def _yaml(key: str, raw: str) -> str:
    section, _, leaf = key.rpartition(".")
    return f"{section}:\n  {leaf}: {raw}\n" if section else f"{leaf}: {raw}\n"
