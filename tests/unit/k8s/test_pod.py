"""Pods and Nodes: what makes a backend usable (P5), and what finds its cgroup (P12)."""

from __future__ import annotations

from datetime import datetime
from ipaddress import ip_address
from typing import Any

import pytest

from k8s.objects.metadata import ObjectError
from k8s.objects.model import Node
from k8s.objects.node import parse_node
from k8s.objects.pod import node_of_pod, parse_pod


def pod(**changes: Any) -> dict[str, Any]:
    status = {
        "phase": "Running",
        "podIP": "10.1.0.5",
        "podIPs": [{"ip": "10.1.0.5"}, {"ip": "fd00::5"}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    metadata = {"name": "p", "namespace": "n", "uid": "u-1", "labels": {"app": "a"}}
    return {
        "metadata": {**metadata, **changes.get("metadata", {})},
        "spec": {"nodeName": "here", **changes.get("spec", {})},
        "status": {**status, **changes.get("status", {})},
    }


@pytest.mark.parametrize(
    ("changes", "usable"),
    [
        pytest.param({}, True, id="ready"),
        pytest.param({"spec": {"hostNetwork": True}}, True, id="host network"),
        pytest.param({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}, False, id="not ready"),
        pytest.param({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}, False, id="unknown"),
        pytest.param({"status": {"conditions": None}}, False, id="no conditions"),
        pytest.param({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, False, id="terminating"),
        pytest.param({"metadata": {"deletionTimestamp": datetime(2026, 1, 1)}}, False, id="terminating, YAML time"),
        pytest.param({"status": {"phase": "Succeeded"}}, False, id="succeeded"),
        pytest.param({"status": {"phase": "Failed"}}, False, id="failed"),
        pytest.param({"status": {"podIP": None, "podIPs": None}}, False, id="no address yet"),
    ],
)
def test_p5_a_usable_pod_is_ready_has_an_address_and_does_not_end(changes: dict[str, Any], usable: bool) -> None:
    assert parse_pod(pod(**changes)).usable is usable


def test_both_addresses_are_taken_and_pod_ip_is_enough() -> None:
    assert parse_pod(pod()).ips == (ip_address("10.1.0.5"), ip_address("fd00::5"))
    assert parse_pod(pod(status={"podIPs": None})).ips == (ip_address("10.1.0.5"),)


def test_p12_uid_and_config_hash_are_kept() -> None:
    found = parse_pod(pod(metadata={"annotations": {"kubernetes.io/config.hash": "abc", "other": 1}}))
    assert (found.uid, found.config_hash) == ("u-1", "abc")


@pytest.mark.parametrize(
    "annotations",
    [
        {"kubernetes.io/config.hash": "a/b"},
        {"kubernetes.io/config.hash": 7},
        {"kubernetes.io/config.hash": "x" * 129},
        {"kubernetes.io/config.hash": ["a"]},
        ["a"],
        "a",
    ],
)
def test_p12_a_malformed_annotation_is_ignored(annotations: object) -> None:
    assert parse_pod(pod(metadata={"annotations": annotations})) == parse_pod(pod())


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1", "0.0.0.0", "::", "fe80::1", "224.0.0.1", "::ffff:10.1.0.5"])
def test_p5_an_address_at_which_no_pod_is_reached_is_a_fault(ip: str) -> None:
    with pytest.raises(ObjectError, match=f"Pod/n/p: status.podIPs.1..ip: '{ip}' is "):
        parse_pod(pod(status={"podIPs": [{"ip": "10.1.0.5"}, {"ip": ip}]}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"metadata": {"uid": "../../x"}}, "Pod/n/p: metadata.uid: '../../x' is wrong"),
        ({"metadata": {"labels": {"a": 1}}}, "Pod/n/p: metadata.labels: key 'a' with value 1 is wrong"),
        ({"status": {"podIPs": [{"ip": "x"}]}}, "Pod/n/p: status.podIPs[0].ip: 'x' is wrong"),
        ({"status": {"podIPs": 3}}, "Pod/n/p: status.podIPs: 3 is wrong; it must be a list"),
        ({"spec": {"hostNetwork": "yes"}}, "Pod/n/p: spec.hostNetwork: 'yes' is wrong"),
    ],
)
def test_an_unusable_pod_object_is_refused_with_object_and_field(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ObjectError, match="Pod/n/p") as caught:
        parse_pod(pod(**changes))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "name"), [(pod(), "here"), ({"spec": {}}, ""), ({"spec": {"nodeName": 1}}, ""), ({}, ""), (3, "")]
)
def test_the_node_of_a_raw_pod_is_its_node_name_or_empty(raw: object, name: str) -> None:
    assert node_of_pod(raw) == name


def test_a_pod_names_its_node() -> None:
    assert (parse_pod(pod()).node, parse_pod(pod(spec={"nodeName": None})).node) == ("here", "")


def test_a_node_is_its_name_and_labels() -> None:
    raw = {"metadata": {"name": "here", "labels": {"zone": "a"}}}
    assert parse_node(raw) == Node(name="here", labels=frozenset({("zone", "a")}))
