"""Pods and host processes that tests give orders to: tests.lab.worker on a real node.

server = workers.server("local", labels={"app": "dns"}, tcp=(80,), udp=(53,))
node.apply([server, workers.idle("client")])
client = workers.in_pod(node, "client")
client.do("tcp", address="10.96.0.10", port=80)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster.control_plane import Manifest
from tests.cluster.machine import Machine
from tests.cluster.ready import AGENT
from tests.lab import worker
from tests.lab.processes import WorkerProcess

NOT_READY = "/tmp/not-ready"  # noqa: S108  (in a container of ours)
_SCRIPT = "/worker.py"


def server(
    name: str,
    *,
    labels: Mapping[str, str],
    tcp: Sequence[int] = (),
    udp: Sequence[int] = (),
    namespace: str = "default",
    **spec: object,
) -> Manifest:
    """A Pod that answers every call with its name, on both families. It is Ready unless NOT_READY exists."""
    # One socket for all addresses does, since the Pod has only one of each family to answer from.
    orders = [
        {"do": "serve", "address": "::", "port": port, "protocol": protocol}
        for protocol, ports in (("TCP", tcp), ("UDP", udp))
        for port in ports
    ]
    lines = "\n".join(json.dumps(each) for each in orders)
    script = f"(cat <<'END'\n{lines}\nEND\nexec sleep infinity) | exec python3 {_SCRIPT} {name}"
    manifest = _pod(name, namespace, labels, script, spec)
    probe = {"exec": {"command": ["test", "!", "-e", NOT_READY]}, "periodSeconds": 1, "failureThreshold": 1}
    manifest["spec"]["containers"][0]["readinessProbe"] = probe
    return manifest


def idle(name: str, *, namespace: str = "default", **spec: object) -> Manifest:
    """A Pod that does nothing until `in_pod` starts a worker in it."""
    return _pod(name, namespace, {"app": name}, "exec sleep infinity", spec)


def _pod(name: str, namespace: str, labels: Mapping[str, str], script: str, spec: Mapping[str, object]) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "main",
                    "image": AGENT,  # since it has Python
                    "imagePullPolicy": "Never",
                    "command": ["sh", "-c", script],
                    "volumeMounts": [{"name": "worker", "mountPath": _SCRIPT}],
                }
            ],
            "volumes": [{"name": "worker", "hostPath": {"path": str(Path(worker.__file__))}}],
            **spec,
        },
    }


def in_pod(node: Machine, pod: str, *, namespace: str = "default") -> WorkerProcess:
    """Starts a worker in a running Pod."""
    command = node.kubectl_command("exec", "-i", "-n", namespace, pod, "--", "python3", _SCRIPT, pod)
    return WorkerProcess(pod, command)


def beside(node: Machine, pod: str) -> WorkerProcess:
    """Starts a worker in the network namespace of a running Pod, and in the cgroup of one of its containers. It does
    not depend on the API server."""
    found = min(node.pod_cgroup(pod).glob("*/cgroup.procs"))
    process, *_ = found.read_text().split()
    command = ["nsenter", f"--net=/proc/{process}/ns/net", sys.executable, "-m", "tests.lab.worker", pod]
    return WorkerProcess(pod, [*command, str(found.parent)])


def on_host(node: Machine) -> WorkerProcess:
    """Starts a worker on the node itself, in the cgroup `host`."""
    command = [*node.sandbox.enter(), sys.executable, "-m", "tests.lab.worker", "host", str(node.cgroup / "host")]
    return WorkerProcess("host", command)


def set_ready(node: Machine, pod: str, *, ready: bool) -> None:
    """Makes the Pod Ready or not. Returns when the API says so."""
    node.exec(pod, *(["rm", "-f", NOT_READY] if ready else ["touch", NOT_READY]))
    node.wait(f"condition=Ready={str(ready).lower()}", 30, f"pod/{pod}")
