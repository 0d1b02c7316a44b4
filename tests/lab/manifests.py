"""Manifests for the tests and the demo."""

from __future__ import annotations

from typing import Any

from tests.lab.lab import CLUSTER_IP, CLUSTER_IP6, VIP, Manifest, PodProcess, uid_of

GROUP = "balancing.elf.io/v1beta1"


def pod(
    process: PodProcess,
    *,
    app: str = "http-redirect",
    ready: bool = True,
    terminating: bool = False,
    node: str = "node",
    host_network: bool = False,
) -> Manifest:
    metadata: dict[str, Any] = {
        "name": process.name,
        "namespace": "default",
        "uid": uid_of(process.name),
        "labels": {"app": app},
    }
    if terminating:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": node, "hostNetwork": host_network},
        "status": {
            "phase": "Running",
            "podIP": process.address,
            "podIPs": [{"ip": process.address}, {"ip": process.address6}],
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }


def service(
    name: str = "http-server-v4", *, ports: tuple[tuple[str, int, str], ...], affinity: bool = False
) -> Manifest:
    spec: dict[str, Any] = {
        "clusterIP": CLUSTER_IP,
        "clusterIPs": [CLUSTER_IP, CLUSTER_IP6],
        "ports": [{"name": each, "port": port, "protocol": protocol} for each, port, protocol in ports],
    }
    if affinity:
        spec["sessionAffinity"] = "ClientIP"
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def policy(
    name: str,
    *,
    ip: str = VIP,
    service_name: str = "",
    ports: tuple[tuple[int, str], ...] = ((53, "UDP"),),
    backend_port: int = 53,
    app: str = "http-redirect",
    created: str = "",
    **config: object,
) -> Manifest:
    """A policy whose frontend ports all lead to one backend port."""
    to_ports = [{"port": port, "protocol": protocol, "name": f"p{i}"} for i, (port, protocol) in enumerate(ports)]
    backend = [{"port": backend_port, "protocol": protocol, "name": f"p{i}"} for i, (_, protocol) in enumerate(ports)]
    frontend: dict[str, Any] = {"addressMatcher": {"ip": ip, "toPorts": to_ports}}
    if service_name:
        frontend = {"serviceMatcher": {"serviceName": service_name, "namespace": "default", "toPorts": to_ports}}
    metadata: dict[str, Any] = {"name": name, "uid": f"uid-{name}"}
    if created:
        metadata["creationTimestamp"] = created
    return {
        "apiVersion": GROUP,
        "kind": "LocalRedirectPolicy",
        "metadata": metadata,
        "spec": {
            "frontend": frontend,
            "backend": {"endpointSelector": {"matchLabels": {"app": app}}, "toPorts": backend},
            "config": config,
        },
    }
