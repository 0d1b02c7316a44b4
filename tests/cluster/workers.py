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
from tests.lab import worker
from tests.lab.lab import WorkerProcess

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
    # A UDP server answers from the address that it is bound to. A Pod without the host's network has only one.
    orders = [
        {"do": "serve", "address": address, "port": port, "protocol": protocol}
        for protocol, ports in (("TCP", tcp), ("UDP", udp))
        for port in ports
        for address in ("::",)
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
                    "image": IMAGE,
                    "imagePullPolicy": "Never",
                    "command": ["sh", "-c", script],
                    "volumeMounts": [{"name": "worker", "mountPath": _SCRIPT}],
                }
            ],
            "volumes": [{"name": "worker", "hostPath": {"path": str(Path(worker.__file__))}}],
            **spec,
        },
    }


IMAGE = "localhost/localredirect:test"
"""The agent's own image, since it has Python."""


def in_pod(node: Machine, pod: str, *, namespace: str = "default") -> WorkerProcess:
    """Starts a worker in a running Pod."""
    command = node.kubectl_command("exec", "-i", "-n", namespace, pod, "--", "python3", _SCRIPT, pod)
    return WorkerProcess(pod, command)


def beside(node: Machine, pod: str) -> WorkerProcess:
    """Starts a worker in a running Pod's network namespace and cgroup. It needs no API server to go on."""
    (cgroup, *_), processes = zip(
        *((path.parent, path.read_text().split()) for path in sorted(node.pod_cgroup(pod).glob("*/cgroup.procs"))),
        strict=True,
    )
    command = ["nsenter", f"--net=/proc/{processes[0][0]}/ns/net", sys.executable, "-m", "tests.lab.worker", pod]
    return WorkerProcess(pod, [*command, str(cgroup)])


def on_host(node: Machine) -> WorkerProcess:
    """Starts a worker on the node itself, in the cgroup `host`."""
    command = [*node.sandbox.enter(), sys.executable, "-m", "tests.lab.worker", "host", str(node.cgroup / "host")]
    return WorkerProcess("host", command)


def set_ready(node: Machine, pod: str, *, ready: bool) -> None:
    """Makes the Pod Ready or not. Returns when the API says so."""
    node.exec(pod, *(["rm", "-f", NOT_READY] if ready else ["touch", NOT_READY]))
    node.wait(f"condition=Ready={str(ready).lower()}", 30, f"pod/{pod}")
