"""The agent and the controller, installed on a node as users install them, and seen as an operator sees them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import images
from tests.cluster.control_plane import Manifest
from tests.cluster.install_yaml import INSTALL, NAMESPACE
from tests.cluster.machine import Machine, arguments_of
from tests.cluster.node_view import NodeView
from tests.cluster.ready import AGENT, DOCKERFILE
from tests.lab.processes import wait_until

DAEMONSET = "balancing-agent"
CONTROLLER = "balancing-controller"
COMPONENTS = {DAEMONSET: "agent", CONTROLLER: "controller"}
"""Name -> the component that labels its Pods."""
HOST = "/host"
"""Where the agent's Pod mounts paths of the node: its cgroups are at `/host/sys/fs/cgroup`."""
READY_SECONDS = 90.0
ALLOWED_ADDRESSES = "169.254.0.0/16"
"""redirect.address_cidrs in the tests. A policy may violate it without the CRD noticing."""
LEASE_SECONDS = 10
"""Shorter than the default, so that tests need not wait as long."""


def agent_cgroup(node: Machine) -> str:
    """The cgroup that stands for the whole node, as the agent's container sees it. Tests never use the machine's root
    cgroup, which a node with a cgroup namespace does not see."""
    return "auto" if node.sandbox.own_cgroups else f"{HOST}{node.cgroup}"


def install_manifests(node: Machine, *, lease_seconds: int = LEASE_SECONDS) -> list[Manifest]:
    """k8s/install.yaml with another image, since no registry has ours, another cgroup, this lease, and
    ALLOWED_ADDRESSES."""
    documents = [each for each in yaml.safe_load_all(INSTALL.read_text()) if each]
    for document in documents:
        if document["kind"] in ("DaemonSet", "Deployment"):
            for container in document["spec"]["template"]["spec"]["containers"]:
                container["image"] = AGENT
        if document["kind"] == "ConfigMap" and "agent.yaml" in document.get("data", {}):
            config = yaml.safe_load(document["data"]["agent.yaml"]) or {}
            config.setdefault("datapath", {}).update(cgroup=agent_cgroup(node), lease_seconds=lease_seconds)
            config.setdefault("redirect", {})["address_cidrs"] = [ALLOWED_ADDRESSES]
            document["data"]["agent.yaml"] = yaml.safe_dump(config)
    return documents


def load_images(node: Machine) -> None:
    for archive in (images.build(DOCKERFILE, AGENT), images.coredns(), images.lookup()):
        node.load_image(archive)


class InstallationView:
    """The agent and the controller as an operator sees them from one node, wherever that node runs."""

    _ready_seconds = READY_SECONDS
    _state_seconds = 60.0

    def __init__(self, node: NodeView) -> None:
        self.node = node

    def wait_ready(self) -> None:
        for kind, name in (("daemonset", DAEMONSET), ("deployment", CONTROLLER)):
            try:
                self.node.kubectl(
                    "rollout", "status", f"{kind}/{name}", "-n", NAMESPACE, f"--timeout={self._ready_seconds:g}s"
                )
            except subprocess.CalledProcessError as error:
                error.add_note(self.describe(name))
                raise

    def describe(self, name: str) -> str:
        """Events and logs of its Pods, which may say why it is not Ready."""
        selector = ("-n", NAMESPACE, "-l", f"app.kubernetes.io/component={COMPONENTS[name]}")
        described = self.node.kubectl("describe", "pods", *selector, check=False).stdout
        return described[-3000:] + self.logs(name)

    def logs(self, name: str = DAEMONSET) -> str:
        selector = f"app.kubernetes.io/component={COMPONENTS[name]}"
        return self.node.kubectl("logs", "-n", NAMESPACE, "-l", selector, "--tail=60", check=False).stdout

    def pods(self, name: str) -> list[Manifest]:
        selector = f"app.kubernetes.io/component%3D{COMPONENTS[name]}"
        found: list[Manifest] = self.node.api.get(f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector={selector}")[
            "items"
        ]
        return found

    def agent_pod(self) -> Manifest:
        """The Pod of the node's agent that is not being deleted."""
        (living,) = (
            pod
            for pod in self.pods(DAEMONSET)
            if pod["spec"].get("nodeName") == self.node.node_name and "deletionTimestamp" not in pod["metadata"]
        )
        return living

    def run(self, *arguments: str) -> str:
        """`python run.py ...` in the agent's container."""
        pod = self.agent_pod()["metadata"]["name"]
        return self.node.exec(pod, "python", "run.py", *arguments, namespace=NAMESPACE).stdout

    def inspect(self, view: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.run("inspect", view, "-o", "json"))
        return found

    def fetch(self, port: int, path: str) -> str:
        """Asks the agent, which has the node's network."""
        return self.node.fetch(port, path)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.fetch(5810, "/status"))
        return found

    def states(self) -> dict[str, str]:
        return {policy["name"]: policy["state"] for policy in self.status()["policies"]}

    def wait_state(self, policy: str, state: str) -> None:
        try:
            wait_until(lambda: self.states().get(policy) == state, f"{policy} is {state}", self._state_seconds)
        except AssertionError as error:
            error.add_note(f"{self.status()['policies']}\n{self.logs()}")
            raise

    def metric(self, name: str) -> float:
        """Value of one line of /metrics, named with its labels."""
        lines = self.fetch(5811, "/metrics").splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(name + " "))

    def wait_gone(self, name: str) -> None:
        """Awaits that no Pod of it exists."""
        wait_until(lambda: not self.pods(name), f"no Pod of {name} is left", 60)

    def policy_table(self) -> list[dict[str, str]]:
        """The rows of `kubectl get lr`: heading -> cell, which may be empty."""
        lines = self.node.kubectl("get", "lr").stdout.splitlines()
        columns = [match.span() for match in re.finditer(r"\S+\s*", lines[0])] if lines else []
        return [{lines[0][a:b].strip(): line[a:b].strip() for a, b in columns} for line in lines[1:]]


class Installation(InstallationView):
    """An installation on a node in a sandbox of this machine, which has the images already."""

    node: Machine

    def __init__(self, node: Machine) -> None:
        super().__init__(node)

    def apply(self) -> None:
        """`kubectl apply -f k8s/install.yaml`; returns when the agent and the controller are Ready."""
        self.node.apply(install_manifests(self.node))
        self.wait_ready()

    def helm_values(self) -> list[str]:
        repository, _, tag = AGENT.rpartition(":")
        return [
            f"--set=image.repository={repository}",
            f"--set=image.tag={tag}",
            f"--set=config.datapath.cgroup={agent_cgroup(self.node)}",
        ]

    def agent_process(self) -> int:
        """The id of the agent's own process. The closer, in the same Pod, is another one. Raises LookupError."""
        pod = self.agent_pod()["metadata"]["name"]
        for process in self.node.processes(pod, namespace=NAMESPACE):
            if arguments_of(process) == ["python", "run.py"]:
                return process
        msg = f"no process of Pod {pod} is the agent"
        raise LookupError(msg)

    def pins(self) -> list[str]:
        """What is pinned on the node, without the kernel's own two iterators and without the agent's directory. A Pod
        cannot remove that directory, which is a mount point there, so it may stay and be empty."""
        bpffs = self.node.path("/sys/fs/bpf")
        found = {path.relative_to(bpffs) for path in bpffs.rglob("*")}
        return sorted(map(str, found - {Path("maps.debug"), Path("progs.debug"), Path("balancing")}))

    def attached(self) -> list[str]:
        """Attach types of the programs on the node's cgroup, according to bpftool."""
        output = subprocess.run(
            ["bpftool", "-j", "cgroup", "show", str(self.node.cgroup)], capture_output=True, text=True, check=True
        ).stdout
        return sorted(each["attach_type"] for each in json.loads(output.strip() or "[]"))
