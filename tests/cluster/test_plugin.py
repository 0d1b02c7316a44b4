"""kubectl lr as users run it: the real kubectl finds it, and the agent is the one that k8s/install.yaml installed."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bpf.build import HOOKS
from config.version import VERSION
from tests.cluster import binaries, examples, workers
from tests.cluster.binaries import ROOT
from tests.cluster.commands import block
from tests.cluster.examples import VIP
from tests.cluster.install_yaml import NAMESPACE
from tests.cluster.installation import Installation
from tests.cluster.machine import arguments_of
from tests.cluster.node import NODE_NAME
from tests.lab.processes import wait_until

PLUGIN = ROOT / "k8s" / "plugin" / "kubectl-lr"
COMMANDS = "docs/commands.md"
USER = "reader"


class Terminal:
    """A shell with kubectl and the plugin on its path, on the node's network."""

    def __init__(self, installation: Installation, folder: Path) -> None:
        self._node = installation.node
        self._folder = folder
        (folder / "kubectl").symlink_to(binaries.kubernetes("kubectl"))
        shutil.copy(PLUGIN, folder)

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """The plugin, in a process group of its own as in an interactive shell."""
        process = subprocess.Popen(
            self._command(*arguments),
            cwd=self._folder,
            env=self._environment(),
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def lr(self, *arguments: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(*arguments),
            cwd=self._folder,
            env=self._environment(kubeconfig),
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )

    def _command(self, *arguments: str) -> list[str]:
        return [*self._node.sandbox.enter(mounts=False), "kubectl", "lr", *arguments]

    def _environment(self, kubeconfig: Path | None = None) -> dict[str, str]:
        return {
            "PATH": f"{self._folder}:/usr/bin:/bin",
            "HOME": str(self._folder),
            "KUBECONFIG": str(kubeconfig or self._node.kubeconfig),
        }


@pytest.fixture(scope="module")
def terminal(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """A terminal on a node that has our users' two policies, and the Pods for them."""
    node = installation.node
    examples.deploy(node)
    examples.apply(installation)
    yield Terminal(installation, tmp_path_factory.mktemp("terminal"))
    node.kubectl("delete", "pods,lr", "--all", "--grace-period=0", "--force")


@pytest.fixture(scope="module")
def reader(installation: Installation) -> Iterator[Path]:
    """The kubeconfig of somebody who has no rights."""
    node = installation.node
    node.kubectl("create", "serviceaccount", USER)
    yield node.plane.make_kubeconfig(node.kubectl("create", "token", USER).stdout.strip())
    node.kubectl("delete", "serviceaccount", USER)


@pytest.fixture
def granted(installation: Installation, reader: Path) -> Iterator[Path]:
    """The same kubeconfig, while its user has the rights that docs/commands.md names."""
    node = installation.node
    roles = block(COMMANDS, "kind: ClusterRole", "yaml")
    node.apply(roles)
    name = ("kubectl-lr", f"--serviceaccount=default:{USER}")
    node.kubectl("create", "clusterrolebinding", *name, "--clusterrole=kubectl-lr")
    node.kubectl("create", "rolebinding", *name, "--role=kubectl-lr", "-n", NAMESPACE)
    yield reader
    node.kubectl("delete", "clusterrolebinding,clusterrole", "kubectl-lr")
    node.kubectl("delete", "rolebinding,role", "kubectl-lr", "-n", NAMESPACE)


def test_status_has_a_row_for_the_node(terminal: Terminal) -> None:
    done = terminal.lr("status")
    heading, row, *_ = done.stdout.splitlines()
    assert heading.split() == ["NODE", "AGENT", "VERSION", "BUILD", "POLICIES", "REDIRECTS/S"]
    assert re.fullmatch(rf"{NODE_NAME} +running +{re.escape(VERSION)} +[0-9a-f-]+ +2 Active +\d+\.\d", row), done
    assert done.stdout.endswith("\n\nNothing is wrong.\n") and (done.returncode, done.stderr) == (0, ""), done


def test_explain_runs_in_the_agent_on_the_node_of_the_pod(terminal: Terminal) -> None:
    done = terminal.lr("explain", "client", f"{VIP}:80/TCP")
    assert done.returncode == 0, done.stderr
    assert "default/client" in done.stdout and "test-addr" in done.stdout and not done.stderr
    both = terminal.lr("explain", "default/client", f"{VIP}:80").stdout
    assert f"{VIP}:80/UDP" in both and f"{VIP}:80/TCP" in both
    assert terminal.lr("explain", "--node", NODE_NAME, "host", f"{VIP}:80/TCP").returncode == 0


def test_doctor_runs_in_every_agent(terminal: Terminal) -> None:
    all_nodes, one = terminal.lr("doctor"), terminal.lr("doctor", "--node", NODE_NAME)
    assert all_nodes.stdout.startswith(f"node {NODE_NAME}:\n") and len(all_nodes.stdout.splitlines()) > 5, all_nodes
    assert one.returncode == all_nodes.returncode and not one.stderr
    other = terminal.lr("doctor", "--node", "other")
    assert (other.returncode, other.stdout) == (1, "node other:\n")
    assert other.stderr == f"error: node other has no agent; nodes that have one: {NODE_NAME}\n"


def test_monitor_shows_the_calls_of_a_pod_and_leaves_nothing_behind(
    terminal: Terminal, installation: Installation
) -> None:
    client = workers.in_pod(installation.node, "client")
    try:
        with terminal.running("monitor", "client", "-o", "json") as monitor:
            assert monitor.stdout
            lines = monitor.stdout

            def is_shown() -> bool:
                client.do("tcp", address=VIP, port=80)
                return bool(select.select([lines], [], [], 0.1)[0])

            wait_until(is_shown, "a call is shown", 60)
            output = json.loads(lines.readline())
            assert (output["client"], output["policy"], output["verdict"]) == (
                "default/client",
                "test-addr",
                "redirect",
            )
            assert is_monitored(installation)
            os.killpg(monitor.pid, signal.SIGINT)  # what a terminal does at Ctrl-C
            monitor.wait()
    finally:
        client.kill()
    wait_until(lambda: not is_monitored(installation), "it has ended in the agent, too", 60)


def is_monitored(installation: Installation) -> bool:
    """Whether `run.py monitor` runs in the agent's Pod."""
    pod = installation.agent_pod()["metadata"]["name"]
    found = installation.node.processes(pod, namespace=NAMESPACE)
    return any(arguments_of(process)[1:3] == ["run.py", "monitor"] for process in found)


def test_explain_of_a_missing_pod_fails_with_kubectls_message(terminal: Terminal) -> None:
    done = terminal.lr("explain", "nobody", f"{VIP}:80/TCP")
    assert (done.returncode, done.stderr) == (1, 'error: Error from server (NotFound): pods "nobody" not found\n')


def test_the_rights_that_the_page_names_suffice(terminal: Terminal, granted: Path, tmp_path: Path) -> None:
    done = terminal.lr("status", kubeconfig=granted)
    assert "running" in done.stdout and not done.stderr
    done = terminal.lr("bundle", "-o", str(tmp_path / "b.tar.gz"), kubeconfig=granted)
    assert done.returncode == 0, done.stderr
    assert "orbidden" not in done.stderr


def test_without_rights_the_plugin_names_the_right_that_is_missing(terminal: Terminal, reader: Path) -> None:
    done = terminal.lr("status", kubeconfig=reader)
    assert done.returncode == 1 and not done.stdout
    assert 'cannot list resource "pods" in API group "" in the namespace "elf". Ask for this right' in done.stderr


def test_where_there_is_no_agent_the_plugin_says_so_and_where_else_to_look(terminal: Terminal) -> None:
    done = terminal.lr("status", "--system-namespace", "default")
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no agent in the namespace default")
    done = terminal.lr("status", "--context", "tset")
    assert done.returncode == 1
    assert 'context "tset" does not exist; there are: test' in done.stderr


def test_a_bundle_holds_no_secret_and_all_that_a_report_needs(
    terminal: Terminal, installation: Installation, tmp_path: Path
) -> None:
    node = installation.node
    token = node.kubectl("create", "token", "default").stdout.strip()
    node.kubectl("create", "secret", "generic", "hidden", f"--from-literal=key={token}", "-n", NAMESPACE)
    path = tmp_path / "bundle.tar.gz"
    done = terminal.lr("bundle", "-o", str(path))
    node.kubectl("delete", "secret", "hidden", "-n", NAMESPACE)
    assert (done.returncode, done.stdout) == (0, f"{path}\n"), done.stderr
    with tarfile.open(path) as archive:
        files = {
            member.name.removeprefix("bundle/"): file.read().decode()
            for member in archive.getmembers()
            if (file := archive.extractfile(member))
        }
    pod = installation.agent_pod()["metadata"]["name"]
    assert {
        "versions.json",
        "nodes.json",
        "policies.json",
        "events-of-policies.txt",
        "events-of-pods.txt",
        "installation.json",
        "services/default/http-server-v4.json",
        f"logs/{pod}/agent.log",
        f"nodes/{NODE_NAME}/status.json",
        f"nodes/{NODE_NAME}/inspect.json",
        f"nodes/{NODE_NAME}/doctor.json",
        "MISSING.txt",
    } <= files.keys()
    assert files["MISSING.txt"] == "nothing is missing\n"
    assert all(hook in files[f"nodes/{NODE_NAME}/inspect.json"] for hook in HOOKS)
    assert not [name for name, text in files.items() if token in text or "eyJhbGci" in text]
