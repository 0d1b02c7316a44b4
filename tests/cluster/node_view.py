"""A node of a cluster as the API server shows it, wherever the node runs."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.cluster.api import Api
from tests.cluster.control_plane import Manifest, WholeControlPlane
from tests.lab.processes import wait_until


def is_ready(pod: Manifest) -> bool:
    """Whether a Pod, as the API shows it, is Ready."""
    return any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", ()))


class NodeView:
    """`plane` is the control plane that the node belongs to, whose API this class offers, too."""

    def __init__(self, plane: WholeControlPlane, name: str) -> None:
        self.plane = plane
        self.node_name = name

    @property
    def api(self) -> Api:
        return self.plane.api

    def kubectl(
        self,
        *args: str,
        input: str | None = None,  # noqa: A002  (subprocess.run's name)
        check: bool = True,
        kubeconfig: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        return self.plane.kubectl(*args, input=input, check=check, kubeconfig=kubeconfig)

    def kubectl_command(self, *args: str, kubeconfig: Path | None = None) -> list[str]:
        return self.plane.kubectl_command(*args, kubeconfig=kubeconfig)

    def apply(self, manifests: str | Manifest | Sequence[Manifest], *, server_side: bool = False) -> None:
        self.plane.apply(manifests, server_side=server_side)

    def wait(self, condition: str, seconds: float, *what: str) -> None:
        self.plane.wait(condition, seconds, *what)

    def api_has(self, path: str) -> bool:
        return self.plane.api_has(path)

    def fetch(self, port: int, path: str) -> str:
        """What an HTTP server answers that listens on the node's own 127.0.0.1. Raises OSError."""
        raise NotImplementedError

    def exec(
        self, pod: str, *command: str, namespace: str = "default", container: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """`kubectl exec`."""
        chosen = ["-c", container] if container else []
        return self.kubectl("exec", "-n", namespace, pod, *chosen, "--", *command, check=check)

    def wait_pod_ready(self, pod: str, *, namespace: str = "default", seconds: float = 60) -> None:
        """The Pod may not exist yet. An error carries what `kubectl describe` says."""
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}"
        try:
            wait_until(lambda: self.api_has(path), f"Pod {pod} exists", seconds)
            self.wait("condition=Ready", seconds, f"pod/{pod}", "-n", namespace)
        except (AssertionError, subprocess.CalledProcessError) as error:
            error.add_note(self.kubectl("describe", "pod", pod, "-n", namespace, check=False).stdout[-3000:])
            raise

    def delete_pod(self, pod: str, *, namespace: str = "default") -> None:
        """Deletes the Pod with the shortest grace period. Returns when the API no longer has it."""
        with suppress(subprocess.CalledProcessError):
            self.kubectl("delete", "pod", pod, "-n", namespace, "--grace-period=1", "--ignore-not-found")
