"""Faults that tests cause in a Pod: it is ended, is not Ready, is killed, or hangs."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.cluster.control_plane import Manifest
from tests.cluster.machine import Machine

READINESS_PORT = 8181
"""Of CoreDNS's readiness probe."""


def delete(node: Machine, pod: str, namespace: str) -> None:
    """Returns when the Pod is gone."""
    node.kubectl("delete", "pod", pod, "-n", namespace, "--wait=true")


def evict(node: Machine, pod: str, namespace: str) -> None:
    """Ends the Pod as `kubectl drain` and the descheduler do. Returns when it is gone."""
    body: Manifest = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": namespace},
    }
    node.api.create(f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction", body)
    node.kubectl("wait", "--for=delete", f"pod/{pod}", "-n", namespace, "--timeout=60s")


@contextmanager
def probe_blocked(process: int) -> Iterator[None]:
    """Blocks the port of the process's readiness probe. The process goes on serving, like an overloaded server."""
    inside = ["nsenter", f"--net=/proc/{process}/ns/net", "nft"]
    rules = f"table inet t {{ chain c {{ type filter hook input priority 0; tcp dport {READINESS_PORT} drop; }}; }}"
    subprocess.run([*inside, rules], check=True)
    try:
        yield
    finally:
        subprocess.run([*inside, "delete table inet t"], check=True)


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)


@contextmanager
def hanging(processes: Sequence[int]) -> Iterator[None]:
    """The processes are stopped, and go on afterwards. Their sockets stay open."""
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)
