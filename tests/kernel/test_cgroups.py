"""Which cgroups the agent finds, in cgroup, mount and pid namespaces as container runtimes make them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bpf.cgroups.hierarchy import find_cgroup
from tests.lab import manifests
from tests.lab.agent import RIGHTS, Agent
from tests.lab.lab import REMOTE, VIP, Lab, PodProcess, remove_cgroups
from tests.lab.processes import ROOT

ENTER_NODE = "echo $$ > $node/cgroup.procs"
ENTER_AGENT = "echo $$ > $agent/cgroup.procs"
MOUNT_VIEW = "mount -t cgroup2 none $view"
MOUNT_OWN = "mount -t cgroup2 none $own"
UNSHARE = "unshare --mount --propagation private"
CONTAINER = [ENTER_AGENT, f"{UNSHARE} --cgroup", MOUNT_OWN]
"""As a container runtime starts the agent: with a mount that shows only the container's own cgroups."""
NESTED = [
    *(ENTER_NODE, f"{UNSHARE} --cgroup", "mount -t cgroup2 none $nodes"),
    *CONTAINER,
    *("mount --bind $nodes $view", "umount -l $nodes $root"),
]
"""The same on a node that is itself a container. The node's cgroups are mounted at `view`."""
KIND = [
    *(ENTER_NODE, f"{UNSHARE} --cgroup", "mount -t cgroup2 none $nodes", "mount -t bpf none /sys/fs/bpf"),
    *("mount -t tmpfs none /mnt", "mkdir /mnt/upper /mnt/work /mnt/root"),
    "mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work none /mnt/root",
    f"for each in dev proc run sys tmp {str(ROOT)[1:]}; do mount --rbind /$each /mnt/root/$each; done",
    f"unshare --root=/mnt/root --wd={ROOT}",
    *CONTAINER,
    *("mount --bind $nodes $view", "umount -l $nodes $root"),
]
"""The same on a node as kind makes it, which also has an overlay as its root, and a bpffs of its own."""
IMPORTS = (
    "from pathlib import Path; from bpf.cgroups.coverage import coverage_faults; "
    "from bpf.cgroups.hierarchy import find_cgroup, own_cgroup"
)
"""How the programs begin that tests run with `Tree.python`."""


class Tree:
    """Cgroups for one test: `node` with `agent` in it, and `beside`. `root` is the mount that shows all of them;
    `view`, `own` and `nodes` are empty directories for further mounts."""

    def __init__(self, top: Path, node: Path, agent: str, folder: Path) -> None:
        self.root = find_cgroup("auto")
        self.top, self.node, self.beside = top, node, top / "beside"
        self.agent = node / agent
        self.view, self.own, self.nodes = folder / "view", folder / "own", folder / "nodes"
        for directory in (self.agent, self.beside, self.view, self.own, self.nodes):
            directory.mkdir(parents=True, exist_ok=True)

    def within(self, *steps: str) -> tuple[str, ...]:
        """A command that takes these steps and then starts the command that follows it. A step with `unshare` starts a
        new shell for the steps after it."""
        script = 'exec "$@"'
        for step in reversed(steps):
            script = f'exec {step} sh -ec {shlex.quote(script)} sh "$@"' if "unshare" in step else f"{step}; {script}"
        names = [f"{name}={path}" for name, path in vars(self).items()]
        return ("env", *names, "sh", "-ec", script, "sh")

    def python(self, program: str, *steps: str) -> str:
        """Takes these steps, runs the program, and returns what it prints."""
        command = [*self.within(*steps), sys.executable, "-c", program]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    top = find_cgroup("auto") / f"lr-{os.getpid()}-views"
    made = Tree(top, top / "node", "agent", tmp_path)
    yield made
    remove_cgroups(top)


@pytest.mark.parametrize(
    ("steps", "mount", "expected"),
    [
        pytest.param([ENTER_AGENT], "root", "agent", id="a process of the node"),
        pytest.param([ENTER_AGENT], "top", "agent", id="a directory below the mount"),
        pytest.param([ENTER_AGENT], "beside", None, id="a directory that does not show it"),
        pytest.param([ENTER_AGENT, f"{UNSHARE} --cgroup"], "root", "agent", id="a container, the node's cgroups"),
        pytest.param(
            [ENTER_AGENT, f"{UNSHARE} --cgroup --pid --fork"], "root", "agent", id="a container with pids of its own"
        ),
        pytest.param(
            [ENTER_AGENT, f"{UNSHARE} --cgroup", MOUNT_VIEW], "view", "agent", id="a container, its own cgroups"
        ),
        pytest.param(
            [ENTER_NODE, f"{UNSHARE} --cgroup", MOUNT_VIEW, ENTER_AGENT, "unshare --cgroup --pid --fork"],
            "view",
            "agent",
            id="a container on a node that is a container",
        ),
        pytest.param(
            [ENTER_NODE, f"{UNSHARE} --cgroup", "echo $$ > $beside/cgroup.procs"],
            "root",
            "beside",
            id="moved out of its cgroup namespace",
        ),
        pytest.param(
            [ENTER_NODE, f"{UNSHARE} --cgroup", MOUNT_VIEW, "echo $$ > $beside/cgroup.procs"],
            "view",
            None,
            id="moved out of its cgroup namespace, and only that is shown",
        ),
        pytest.param(
            [ENTER_AGENT, UNSHARE, "mount --bind $node $view"], "view", "agent", id="a part that is bound elsewhere"
        ),
    ],
)
def test_the_agents_own_cgroup_is_found_in_every_view(
    tree: Tree, steps: list[str], mount: str, expected: str | None
) -> None:
    program = f"{IMPORTS}; print(own_cgroup(Path('{vars(tree)[mount]}')))"
    wanted = vars(tree)[expected].stat().st_ino if expected else None
    assert tree.python(program, *steps) == str(wanted)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        pytest.param([], "root", id="a process of the node"),
        pytest.param([*CONTAINER, "mount --bind $root $view", "umount -l $root"], "view", id="a container"),
        pytest.param(NESTED, "view", id="a container on a node that is a container"),
        pytest.param([*CONTAINER, "umount -l $root"], "own", id="a container that sees only its own cgroups"),
        pytest.param([*NESTED, "mount -t tmpfs none $view"], "own", id="a mount that another one hides"),
    ],
)
def test_auto_is_the_mount_that_shows_most(tree: Tree, steps: list[str], expected: str) -> None:
    assert tree.python(f"{IMPORTS}; print(find_cgroup('auto'))", *steps) == str(vars(tree)[expected])


@pytest.mark.parametrize(
    ("kubepods", "steps", "warning"),
    [
        pytest.param("node/kubepods", NESTED, "", id="a node that is a container"),
        pytest.param("node/kubelet.slice/kubelet-kubepods.slice", NESTED, "", id="kind"),
        pytest.param("node/pods/kubepods", NESTED, "", id="cgroupRoot"),
        pytest.param("beside/kubepods", NESTED, "no kubepods cgroup below", id="no kubelet's cgroups below"),
        pytest.param(
            "node/kubepods", [*CONTAINER, "umount -l $root"], "the agent's own cgroup", id="only its own cgroup"
        ),
    ],
)
def test_a_cgroup_that_covers_no_pod_is_reported(tree: Tree, kubepods: str, steps: list[str], warning: str) -> None:
    (tree.top / kubepods).mkdir(parents=True)
    printed = tree.python(f"{IMPORTS}; print(*coverage_faults(find_cgroup('auto')))", *steps)
    assert warning in printed
    assert bool(printed) == bool(warning)


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Tree:
    """The laboratory as a node that is a container. Its cgroups are removed with the laboratory."""
    return Tree(lab.cgroup, lab.cgroup, "kubepods/besteffort/pod-agent/ctr", tmp_path)


def doctor(agent: Agent, node: Tree) -> dict[str, dict[str, Any]]:
    """Check -> what `run.py doctor` finds, as by `kubectl exec` in the agent's container."""
    assert agent.process
    enter = ("nsenter", f"--target={agent.process.pid}", "--net", "--mount", "--cgroup", "--root", "--wd")
    join = ("sh", "-c", 'echo $$ > "$0"; exec "$@"', str(node.agent / "cgroup.procs"))
    done = agent.command("doctor", "-o", "json", within=(*join, *enter, *RIGHTS))
    assert done.stdout, done.stderr
    return {each["check"]: each for each in json.loads(done.stdout)}


def test_on_a_node_that_is_a_container_pods_are_redirected_and_doctor_finds_nothing_wrong(
    lab: Lab, node: Tree, pods: list[PodProcess], client: PodProcess
) -> None:
    lab.write("pod", manifests.pod(pods[0]))
    lab.write("policies", manifests.policy("vip"))
    agent = Agent(lab, {"datapath__cgroup": "auto", "redirect__close_stale_sockets": False})
    agent.start(within=node.within(*KIND))
    try:
        assert agent.process
        mounted = Path(f"/proc/{agent.process.pid}/mountinfo").read_text().splitlines()
        assert [line.split(" - ")[1].split()[0] for line in mounted if line.split()[4] == "/"] == ["overlay"]
        assert client.do("udp", address=VIP, port=53)["who"] == "pod0"
        assert pods[0].do("udp", address=VIP, port=53)["who"] == REMOTE
        assert agent.status()["datapath"]["cgroup"] == str(node.view)
        assert agent.status()["datapath"]["warnings"] == []
        found = doctor(agent, node)
        assert [each for each in found.values() if not each["ok"]] == []
        assert found["cgroup"]["detail"] == f"{node.view} has the kubelet's cgroups below it"
        assert found["redirect"]["detail"] == "a test program of this command redirected a test call"
        assert found["first"]["detail"] == f"no other program runs before ours on {node.view}"
    finally:
        agent.terminate()


def test_an_agent_that_covers_no_pod_says_so_and_doctor_too(lab: Lab, node: Tree) -> None:
    agent = Agent(lab, {"datapath__cgroup": "auto", "redirect__close_stale_sockets": False})
    agent.start(within=node.within(*CONTAINER, "umount -l $root"))
    try:
        (warning,) = agent.status()["datapath"]["warnings"]
        assert "is the agent's own cgroup" in warning
        assert "WARNING" in agent.log.read_text()
        assert warning in agent.log.read_text()
        assert agent.metric('localredirect_datapath_fault{fault="no_pods_covered"}') == 1
        found = doctor(agent, node)
        assert warning in found["cgroup"]["detail"]
        assert [name for name, each in found.items() if not each["ok"]] == ["cgroup"]
    finally:
        agent.terminate()
        agent.command("detach")


def test_an_agent_whose_cgroup_somebody_removed_says_so_and_serves_its_counters(
    lab: Lab, pods: list[PodProcess]
) -> None:
    lab.write("pod", manifests.pod(pods[0]))
    lab.write("policies", manifests.policy("dns"))
    cgroup = lab.cgroup / "removed"
    (cgroup / "kubepods").mkdir(parents=True)
    with lab.running_agent(datapath__cgroup=str(cgroup)) as made:
        fault = 'localredirect_datapath_fault{fault="no_pods_covered"}'
        assert made.metric(fault) == 0
        (cgroup / "kubepods").rmdir()
        assert made.metric(fault) == 1
        cgroup.rmdir()
        assert made.metric(fault) == 1
        assert made.metric('localredirect_redirects_total{policy="dns"}') == 0
        assert made.metric("localredirect_collect_errors_total") == 0
        (warning,) = made.status()["datapath"]["warnings"]
        assert warning.startswith(f"datapath.cgroup: {cgroup} is gone, and our programs with it")
