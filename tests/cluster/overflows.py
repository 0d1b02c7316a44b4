"""Counts the questions that the full queues of DNS servers dropped.

They are lost because the machine is too busy for the load, whatever LocalRedirect does.

The kernel counts them for each network namespace (RcvbufErrors in /proc/net/snmp). Overflows
holds the namespaces open, so that it can read their counts when their Pods are gone.
"""

from __future__ import annotations

import os
import subprocess
from typing import Self

from tests.cluster.machine import Machine


class Overflows:
    """Context manager. Counts for all CoreDNS Pods in a namespace of the API, from when the context is entered."""

    def __init__(self, node: Machine, namespace: str) -> None:
        self._node, self._namespace = node, namespace
        self._held: dict[int, int] = {}
        """Inode of a network namespace -> descriptor."""
        self._before = 0

    def __enter__(self) -> Self:
        self._look()
        self._before = self._sum()
        return self

    def count(self) -> int:
        """The number until now, including Pods that have started meanwhile."""
        self._look()
        return self._sum() - self._before

    def __exit__(self, *_: object) -> None:
        for descriptor in self._held.values():
            os.close(descriptor)

    def _look(self) -> None:
        for pod in self._node.api.get(f"/api/v1/namespaces/{self._namespace}/pods")["items"]:
            try:
                process = self._node.process_of(pod["metadata"]["name"], "coredns", namespace=self._namespace)
                descriptor = os.open(f"/proc/{process}/ns/net", os.O_RDONLY)
            except (LookupError, OSError):  # another kind of Pod, or it does not run
                continue
            inode = os.fstat(descriptor).st_ino
            if inode in self._held:
                os.close(descriptor)
            else:
                self._held[inode] = descriptor

    def _sum(self) -> int:
        return sum(map(_dropped, self._held.values()))


def _dropped(namespace: int) -> int:
    command = ["nsenter", f"--net=/proc/self/fd/{namespace}", "cat", "/proc/net/snmp"]
    output = subprocess.run(command, pass_fds=[namespace], capture_output=True, text=True, check=True).stdout
    names, numbers = (line.split() for line in output.splitlines() if line.startswith("Udp:"))
    return int(dict(zip(names, numbers, strict=True))["RcvbufErrors"])
