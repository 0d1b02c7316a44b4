"""What runs on the node beside us: a web server of each QoS class, a client, Services, and policies."""

from __future__ import annotations

from tests.cluster import images
from tests.cluster.control_plane import Manifest
from tests.systemd.node import NAME

CLASSES: dict[str, Manifest] = {
    "guaranteed": {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"cpu": "20m", "memory": "32Mi"}},
    "burstable": {"requests": {"cpu": "10m"}},
    "besteffort": {},
}
"""QoS class -> the resources that put a Pod in it. Each class has a place of its own below kubepods.slice."""
STATIC = "static"
BACKENDS = (*CLASSES, STATIC)
"""Each has a Service and a policy of its own name, and its policy selects it by this name."""
CLIENT = "client"
REMOTE = "remote"
"""The only endpoint of every Service, so it answers the calls that take the normal way."""


def pod_of(backend: str) -> str:
    """The name of a backend's Pod in the API. The kubelet appends the node's name to the name of a static Pod."""
    return f"{STATIC}-{NAME}" if backend == STATIC else backend


def web_server(name: str, resources: Manifest | None = None, **labels: str) -> Manifest:
    """A Pod that answers each HTTP request with its name. Its probe makes it ready no earlier than it listens."""
    script = f"mkdir /www && echo {name} >/www/index.html && exec httpd -f -p 80 -h /www"
    container = {
        "name": "server",
        "image": images.BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", script],
        "resources": resources or {},
        "readinessProbe": {"httpGet": {"port": 80}, "periodSeconds": 2},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
    }


def static_pod() -> Manifest:
    return web_server(STATIC, backend=STATIC)


def others() -> list[Manifest]:
    """All but the static Pod, which does not come from the API, and the policies, which come later."""
    backends = [web_server(name, resources, backend=name) for name, resources in CLASSES.items()]
    return [*map(_service, BACKENDS), *backends, web_server(REMOTE, app=REMOTE), web_server(CLIENT)]


def _service(name: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": REMOTE}, "ports": [{"port": 80}]},
    }


def policy(name: str) -> Manifest:
    ports = [{"port": 80, "protocol": "TCP"}]
    matcher = {"serviceName": name, "namespace": "default", "toPorts": ports}
    return {
        "apiVersion": "balancing.elf.io/v1beta1",
        "kind": "LocalRedirectPolicy",
        "metadata": {"name": name},
        "spec": {
            "frontend": {"serviceMatcher": matcher},
            "backend": {"endpointSelector": {"matchLabels": {"backend": name}}, "toPorts": ports},
        },
    }
