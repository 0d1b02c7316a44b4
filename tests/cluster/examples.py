"""Our users' two policies, and what they need on a node: a Service with a Pod behind it, a local Pod, and a client."""

from __future__ import annotations

from typing import Any

import yaml

from tests.cluster import workers
from tests.cluster.binaries import ROOT
from tests.cluster.control_plane import Manifest
from tests.cluster.installation import Installation
from tests.cluster.machine import Machine

VIP = "169.254.0.90"
NAMES = {"address-frontend": "test-addr", "service-frontend": "test-service"}
"""File (without .yaml) -> the policy's name."""
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "http-server-v4", "namespace": "default"},
    "spec": {
        "selector": {"app": "http-server"},
        "ports": [{"name": "p1", "port": 8080, "targetPort": 80}, {"name": "p2", "port": 80, "targetPort": 80}],
    },
}


def example(name: str, **changes: Any) -> Manifest:
    """A policy as it is in the file, with some fields of its `spec` replaced."""
    found: Manifest = yaml.safe_load((ROOT / "k8s" / "examples" / f"{name}.yaml").read_text())
    found["spec"] |= changes
    return found


def deploy(node: Machine) -> None:
    """Runs three Pods: `local`, which the examples select, `remote` behind the Service, and `client`."""
    local = workers.server("local", labels={"app": "http-redirect"}, tcp=(80,))
    remote = workers.server("remote", labels={"app": "http-server"}, tcp=(80,))
    node.apply([SERVICE, local, remote, workers.idle("client")])
    for name in ("local", "remote", "client"):
        node.wait_pod_ready(name)


def apply(installed: Installation) -> None:
    """Applies both policies. Returns when they are in force."""
    installed.node.apply([example(file) for file in NAMES])
    wait_active(installed)


def wait_active(installed: Installation) -> None:
    for policy in NAMES.values():
        installed.wait_state(policy, "Active")


def frontends(node: Machine) -> list[tuple[str, int]]:
    """The four frontends of the two policies: two of the virtual IP, two of the Service."""
    address = node.api.get("/api/v1/namespaces/default/services/http-server-v4")["spec"]["clusterIP"]
    return [(VIP, 8080), (VIP, 80), (address, 8080), (address, 80)]
