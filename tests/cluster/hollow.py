"""Hollow nodes and their Pods: objects in the API as a kubelet would report them, with no kubelet behind them.

The scheduler and the DaemonSet controller treat such a node like a real one, but nothing runs on it. A Pod that a
controller puts there stays Pending until `make_ready`. A Pod that somebody deletes stays until `remove_pods`, since no
kubelet confirms that it has ended.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Address
from urllib.parse import quote

from tests.cluster.api import Api, Json

IMAGE = "localhost/hollow:1"
LABEL = "localredirect.test/hollow"
_addresses = (str(IPv4Address("10.200.0.1") + number) for number in itertools.count())


def add_nodes(
    api: Api, count: int, *, prefix: str = "hollow", labels: Mapping[str, str] | None = None, ready: bool = True
) -> list[str]:
    """Names of the new nodes, `<prefix>-0` and so on. Each has LABEL among its labels."""
    names = [f"{prefix}-{number}" for number in range(count)]
    for name in names:
        all_labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", LABEL: "true", **(labels or {})}
        room = {"cpu": "8", "memory": "16Gi", "pods": "110", "ephemeral-storage": "100Gi"}
        status = {
            "capacity": room,
            "allocatable": room,
            "addresses": [{"type": "InternalIP", "address": next(_addresses)}, {"type": "Hostname", "address": name}],
            "conditions": [{**_condition("Ready", holds=ready), "lastHeartbeatTime": _now()}],
        }
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": all_labels}, "status": status}
        api.create("/api/v1/nodes", node)
    return names


def add_pods(
    api: Api,
    nodes: Iterable[str],
    *,
    namespace: str = "default",
    prefix: str = "pod",
    labels: Mapping[str, str] | None = None,
    ready: bool = True,
    ports: Sequence[Mapping[str, object]] = (),
) -> list[str]:
    """Names of the new Pods, `<prefix>-<node>`: one on each node. `ports` are those of its container."""
    names = []
    for node in nodes:
        name = f"{prefix}-{node}"
        container = {"name": "main", "image": IMAGE, "ports": list(ports)}
        metadata = {"name": name, "namespace": namespace, "labels": dict(labels or {})}
        spec = {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 0}
        pod = api.create(_pods(namespace), {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        report(api, pod, ready=ready)
        names.append(name)
    return names


def make_ready(api: Api, *, namespace: str = "default", selector: str = "", ready: bool = True) -> int:
    """Reports the state of every Pod that is bound to a hollow node. Returns their number."""
    hollow = {node["metadata"]["name"] for node in api.get(f"/api/v1/nodes?labelSelector={LABEL}")["items"]}
    pods = [pod for pod in _list(api, namespace, selector) if pod["spec"].get("nodeName") in hollow]
    for pod in pods:
        report(api, pod, ready=ready)
    return len(pods)


def report(api: Api, pod: Json, *, ready: bool = True, address: str = "") -> None:
    """Reports that a Pod runs, as its kubelet would. The Pod keeps its address unless `address` names another."""
    address = address or pod.get("status", {}).get("podIP") or next(_addresses)
    conditions = [_condition("Initialized"), _condition("PodScheduled")]
    conditions += [_condition(kind, holds=ready) for kind in ("Ready", "ContainersReady")]
    running = {"running": {"startedAt": _now()}}
    containers = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": container["image"],
            "ready": ready,
            "started": True,
            "restartCount": 0,
            "state": running,
        }
        for container in pod["spec"]["containers"]
    ]
    addresses = {"podIP": address, "podIPs": [{"ip": address}]}
    status = {"phase": "Running", "startTime": _now(), "conditions": conditions, "containerStatuses": containers}
    metadata = pod["metadata"]
    api.patch(f"{_pods(metadata['namespace'])}/{metadata['name']}/status", {"status": {**status, **addresses}})


def remove_pods(api: Api, *, namespace: str = "default", selector: str = "") -> int:
    """Deletes them at once. Returns their number."""
    pods = _list(api, namespace, selector)
    for pod in pods:
        api.delete(f"{_pods(namespace)}/{pod['metadata']['name']}", grace_seconds=0)
    return len(pods)


def remove_nodes(api: Api, names: Iterable[str]) -> None:
    for name in names:
        api.delete(f"/api/v1/nodes/{name}")


def _list(api: Api, namespace: str, selector: str) -> list[Json]:
    items: list[Json] = api.get(f"{_pods(namespace)}?labelSelector={quote(selector)}")["items"]
    return items


def _pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def _condition(kind: str, *, holds: bool = True) -> Json:
    return {"type": kind, "status": str(holds), "lastTransitionTime": _now()}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
