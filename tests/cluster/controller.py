"""`run.py controller` as a process of its own, against a test's control plane."""

from __future__ import annotations

import http.client
import json
import signal
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.binaries import ROOT
from tests.cluster.control_plane import ControlPlane
from tests.cluster.install_yaml import INSTALL, NAMESPACE
from tests.lab.processes import wait_until
from tests.process_usage import cpu_seconds, resident_megabytes
from tests.unit.peers import free_port

ACCOUNT = "balancing-controller"
_RIGHTS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")


def install_rights(cluster: ControlPlane, namespace: str = NAMESPACE) -> Path:
    """Applies only the controller's rights from k8s/install.yaml. Returns a kubeconfig of its service account."""
    cluster.kubectl("create", "namespace", namespace)
    documents = list(yaml.safe_load_all(INSTALL.read_text()))
    rights = [
        each for each in documents if each and each["kind"] in _RIGHTS and each["metadata"]["name"].startswith(ACCOUNT)
    ]
    assert {each["kind"] for each in rights} == set(_RIGHTS)
    for each in rights:
        for named in (each["metadata"], *each.get("subjects", ())):
            if named.get("namespace") == NAMESPACE:
                named["namespace"] = namespace
        # Objects outside the installation's own namespace must not replace those of the other installation.
        if each["kind"].endswith("Binding") and each["metadata"].get("namespace") != namespace != NAMESPACE:
            each["metadata"]["name"] += f"-{namespace}"
    cluster.apply(rights)
    token = cluster.kubectl("create", "token", ACCOUNT, "-n", namespace, "--duration=2h").stdout.strip()
    return cluster.make_kubeconfig(token)


class Controller:
    """Runs until `stop` or `kill`, or until the cluster is closed."""

    def __init__(self, cluster: ControlPlane, kubeconfig: Path, *, namespace: str = NAMESPACE, **sections: Any) -> None:
        self._health, self._metrics = free_port(), free_port()
        name = f"controller-{self._health}"
        self._log = cluster.folder / f"{name}.log"
        config = cluster.folder / f"{name}.yaml"
        settings = {
            "source": {"kubeconfig": str(kubeconfig)},
            "health": {"port": self._health},
            "metrics": {"address": "127.0.0.1", "port": self._metrics},
            **sections,
        }
        config.write_text(json.dumps(settings))
        self.process = cluster.sandbox.daemon(
            name,
            "env",
            "-C",
            ROOT,
            f"POD_NAMESPACE={namespace}",
            sys.executable,
            "run.py",
            "controller",
            "--config",
            config,
        )

    def get(self, path: str, *, port: int = 0) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", port or self._health, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        code, text = self.get("/status")
        return dict(json.loads(text)) if code == 200 else {}

    def leads(self) -> bool:
        return bool(self.status().get("leader", {}).get("leads"))

    def wait_until_leading(self, seconds: float = 30) -> None:
        """Awaits that it leads, and that all its sources are synced."""
        wait_until(
            lambda: self.leads() and self.get("/readyz")[0] == 200,
            lambda: f"the controller leads\n{self.log()}",
            seconds,
        )

    def writes(self, what: str, result: str = "written") -> int:
        _, text = self.get("/metrics", port=self._metrics)
        name = f'localredirect_api_writes_total{{result="{result}",what="{what}"}} '
        return sum(int(float(line.removeprefix(name))) for line in text.splitlines() if line.startswith(name))

    def has_received_objects(self) -> bool:
        """Whether it has ever received any of the API server's objects."""
        return "source_last_event_seconds{" in self.get("/metrics", port=self._metrics)[1]

    def usage(self) -> tuple[float, float]:
        """Resident memory in MB, and seconds of CPU."""
        return resident_megabytes(self.process.pid), cpu_seconds(self.process.pid)

    def log(self) -> str:
        return self._log.read_text()

    def stop(self) -> int:
        """Stops it with SIGTERM. Returns its exit code; raises TimeoutExpired after 5 s."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(5)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(5)
