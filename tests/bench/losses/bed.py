"""What is the same for every way and fault: the cluster's DNS, clients, two proxies, and the load on them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.cluster import binaries, dns, images, load
from tests.cluster.control_plane import Manifest
from tests.cluster.load import Asking, Load
from tests.cluster.node import Node
from tests.cluster.places import CLUSTER_DNS

IMAGE = "localhost/losses:1"
FOLDER = Path(__file__).parent / "image"
RATE = 1000
KEPT = 10
"""How many sockets are kept and ask all the time. As many others are quiet until the fault is over."""
CLIENT = "resolver"
SERVERS = 2
"""Pods of the cluster's DNS, so that another server is left even without a local cache."""
NGINX_PORT, HAPROXY_PORT = 8080, 8081
MEMORY_LIMIT = "170Mi"


def load_images(node: Node) -> None:
    for archive in (images.coredns(), images.lookup(), images.build(FOLDER / "Dockerfile", IMAGE, context=FOLDER)):
        node.load_image(archive)


@dataclass(frozen=True)
class Requests:
    """The HTTP requests to one proxy."""

    sent: int
    failed: int
    reasons: Mapping[str, int]
    slowest_ms: float

    def __str__(self) -> str:
        reasons = "".join(f", {reason} {number}" for reason, number in self.reasons.items())
        return f"{self.failed} of {self.sent} failed{reasons}, slowest {self.slowest_ms:.0f} ms"


@dataclass(frozen=True)
class Measured:
    lookups: load.Result
    nginx: Requests
    haproxy: Requests
    quiet_nginx: Requests
    quiet_haproxy: Requests

    def __str__(self) -> str:
        names = ("nginx", "haproxy", "quiet_nginx", "quiet_haproxy")
        return "\n    ".join([str(self.lookups), *(f"{name}: {getattr(self, name)}" for name in names)])


class Bed:
    """The node has the images already."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._addresses: dict[str, str] = {}

    def deploy(self) -> None:
        pods = [_pod(name) for name in ("web", "busy", "quiet")]
        web = {"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"name": "http", "port": 8080}]}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": web}
        self.node.apply([*map(_prepared, dns.cluster_dns()), dns.client(CLIENT), service, *pods])
        self.node.kubectl("rollout", "status", "deployment/coredns", "-n", "kube-system", "--timeout=90s")
        for name in (CLIENT, "web", "busy", "quiet"):
            self.node.wait_pod_ready(name)
        for name in ("busy", "quiet"):
            self._addresses[name] = self.node.api.get(f"/api/v1/namespaces/default/pods/{name}")["status"]["podIP"]

    @contextmanager
    def web(self) -> Iterator[None]:
        """The server behind the proxies."""
        with self._running("web", "nginx", "-c", "/etc/losses/web.conf"):
            yield

    def answered(self) -> bool:
        """Whether a lookup through the frontend is answered."""
        command = ["/usr/bin/openloop", CLUSTER_DNS, dns.NAME, "--seconds", "0.02", "--rate", "50"]
        done = self.node.beside(CLIENT, command, stdout=subprocess.PIPE, text=True)
        return load.parse(done.communicate()[0].splitlines()[-1]).lookups.unanswered == 0

    @contextmanager
    def _running(self, pod: str, *command: str) -> Iterator[None]:
        process = self.node.beside(
            pod, command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait()

    def load(self) -> Load:
        return Load(self.node, CLIENT, rate=RATE, kept=KEPT, quiet=KEPT)

    @contextmanager
    def proxies(self) -> Iterator[HttpLoad]:
        """Starts the proxies, so that none has a socket that went stale earlier, and the load on them."""
        with ExitStack() as stack:
            for pod in self._addresses:
                stack.enter_context(self._running(pod, "nginx", "-c", "/etc/losses/nginx.conf"))
                stack.enter_context(self._running(pod, "haproxy", "-db", "-f", "/etc/losses/haproxy.cfg"))
            yield stack.enter_context(HttpLoad(self.node, self._addresses))


class HttpLoad:
    """Context manager; `results` is valid after it. Every proxy has answered when the context is entered."""

    _asking: Asking

    def __init__(self, node: Node, addresses: Mapping[str, str]) -> None:
        self._node = node
        ports = {"nginx": NGINX_PORT, "haproxy": HAPROXY_PORT}
        self._targets = [
            f"{pod}-{proxy}={address}:{port}{',quiet' if pod == 'quiet' else ''}"
            for pod, address in addresses.items()
            for proxy, port in ports.items()
        ]
        self.results: dict[str, Requests] = {}

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.bench.losses.http_load", *self._targets]
        self._asking = Asking(self._node.host_process(command, stdout=subprocess.PIPE, text=True))
        return self

    def ask_quiet(self) -> None:
        self._asking.ask_quiet()

    def __exit__(self, *_: object) -> None:
        output: dict[str, Any] = json.loads(self._asking.end(60))
        self.results = {name: Requests(**numbers) for name, numbers in output.items()}


def _prepared(manifest: Manifest) -> Manifest:
    """The cluster's DNS, with a second Pod and the memory limit that kubeadm gives it."""
    if manifest["kind"] != "Deployment":
        return manifest
    spec = manifest["spec"] | {"replicas": SERVERS}
    spec["template"]["spec"]["containers"][0]["resources"] = {"limits": {"memory": MEMORY_LIMIT}}
    return manifest | {"spec": spec}


def _pod(name: str) -> Manifest:
    container = {"name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "infinity"]}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def coredns_volume() -> tuple[Manifest, Manifest]:
    """The volume and the mount that put CoreDNS into a container of IMAGE."""
    path = {"path": str(binaries.coredns()), "type": "File"}
    return {"name": "coredns", "hostPath": path}, {"name": "coredns", "mountPath": "/coredns", "readOnly": True}
