"""Which cgroups the agent finds, in cgroup, mount and pid namespaces as container runtimes make them (P12, P17)."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpf.cgroups import find_cgroup
from tests.lab.lab import ROOT, wait_until

ENTER_NODE = "echo $$ > $node/cgroup.procs"
ENTER_AGENT = "echo $$ > $agent/cgroup.procs"
MOUNT_VIEW = "mount -t cgroup2 none $view"
UNSHARE = "unshare --mount --propagation private"


class Tree:
    """Cgroups of the test's own: a `node` with an `agent` in it, and one `beside`; `root` is the mount that shows all
    of them, `view` a directory for another one."""

    def __init__(self, folder: Path) -> None:
        self.root = find_cgroup("auto")
        self.top = self.root / f"lr-{os.getpid()}-views"
        self.node, self.beside = self.top / "node", self.top / "beside"
        self.agent = self.node / "agent"
        self.view = folder / "view"
        for directory in (self.agent, self.beside, self.view):
            directory.mkdir(parents=True)

    def python(self, program: str, *steps: str) -> str:
        """What a program prints that is started by the last of the steps; each is of a shell that the former starts."""
        script = '"$@"'
        for step in reversed(steps):
            script = f'{step} sh -ec {shlex.quote(script)} sh "$@"' if "unshare" in step else f"{step}; {script}"
        command = ["sh", "-ec", script, "sh", sys.executable, "-c", program]
        names = {name: str(path) for name, path in vars(self).items()}
        result = subprocess.run(command, cwd=ROOT, env=os.environ | names, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    def remove(self) -> None:
        for directory, _, _ in os.walk(self.top, topdown=False):
            wait_until(lambda directory=directory: _removed(directory), f"{directory} is empty")  # type: ignore[misc]


def _removed(directory: str) -> bool:
    try:
        Path(directory).rmdir()
    except OSError:
        return False
    return True


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    made = Tree(tmp_path)
    yield made
    made.remove()


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
            id="moved out of its cgroup namespace, which alone is shown",
        ),
        pytest.param(
            [ENTER_AGENT, UNSHARE, "mount --bind $node $view"], "view", "agent", id="a part that is bound elsewhere"
        ),
    ],
)
def test_the_agents_own_cgroup_is_found_in_every_view(
    tree: Tree, steps: list[str], mount: str, expected: str | None
) -> None:
    program = f"import bpf.cgroups, pathlib; print(bpf.cgroups.own_cgroup(pathlib.Path('{vars(tree)[mount]}')))"
    wanted = vars(tree)[expected].stat().st_ino if expected else None
    assert tree.python(program, *steps) == str(wanted)
