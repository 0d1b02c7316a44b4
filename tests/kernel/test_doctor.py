"""`run.py doctor` on this kernel, beside a real agent and closer: what it finds, and what it says to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bpf import libbpf
from bpf.cgroups.hierarchy import find_cgroup
from bpf.maps import packing
from bpf.maps.rows import CloserFault, CloserRow
from config.version import VERSION
from tests.lab import manifests
from tests.lab.agent import RIGHTS, Agent
from tests.lab.closer import Closer
from tests.lab.lab import Lab, PodProcess
from tests.lab.neighbours import foreign_programs
from tests.lab.processes import wait_until
from tests.lab.rows import installed_maps

CHECKS = ["kernel", "rights", "cgroup", "clocks", "redirect", "bpffs", "attached", "first", "lease", "maps", "api"]
CHECKS_OF_THE_AGENT = ["agent", "sources", "actors", "closer", "metrics", "policies"]
AGENT_OPTIONS = {"datapath__max_backends": 8}
"""Its map of backends is soon full."""


@pytest.fixture
def closer(lab: Lab, agent: Agent) -> Iterator[Closer]:
    made = Closer(lab, agent)
    wait_until(lambda: agent.status()["closer"]["state"] == "running", "the closer is running")
    yield made
    made.terminate()
    forget_closer(lab)


def forget_closer(lab: Lab) -> None:
    """Leaves the map as on a node where no closer ever ran. Otherwise the agent would report it as running for ten
    seconds."""
    with installed_maps(lab) as maps:
        maps["closer"].update(bytes(4), packing.pack_closer(CloserRow(alive_ns=0, fault=CloserFault.NONE)))


def in_cgroup(lab: Lab, script: str = "true") -> tuple[str, ...]:
    """A command that starts another one in the node's network and in a cgroup of its own, as in a container."""
    own = lab.cgroup / "doctor"
    own.mkdir(exist_ok=True)
    script = f'echo $$ > {own}/cgroup.procs; {script}; exec "$@"'
    return ("nsenter", f"--net=/run/netns/{lab.node}", "unshare", "--mount", "sh", "-ec", script, "sh")


def examine(lab: Lab, agent: Agent, *within: str, script: str = "true") -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit code, and check -> what was found."""
    done = agent.command("doctor", "-o", "json", within=(*in_cgroup(lab, script), *within))
    assert done.stdout, done.stderr
    return done.returncode, {each["check"]: each for each in json.loads(done.stdout)}


def wrong(found: dict[str, dict[str, Any]]) -> list[str]:
    assert all(bool(each["remedy"]) != each["ok"] for each in found.values())
    return [check for check, each in found.items() if not each["ok"]]


@pytest.mark.usefixtures("closer")
def test_with_the_agents_rights_nothing_is_wrong_on_a_healthy_node(
    lab: Lab, agent: Agent, pods: list[PodProcess]
) -> None:
    lab.write("objects", manifests.pod(pods[0]), manifests.policy("vip"))
    wait_until(lambda: agent.states() == {"vip": "Active"}, "active")
    code, found = examine(lab, agent, *RIGHTS)
    assert (code, wrong(found)) == (0, []), found
    assert list(found) == [*CHECKS, *CHECKS_OF_THE_AGENT]
    assert found["redirect"]["detail"] == "a test program of this command redirected a test call"
    assert found["agent"]["detail"].startswith(f"version {VERSION}, build ")
    assert "backends 1 of 8" in found["maps"]["detail"]
    assert not list(find_cgroup("auto").glob("**/localredirect-doctor-*"))


def test_where_cgroups_are_read_only_the_redirect_is_tried_on_its_own(lab: Lab, agent: Agent) -> None:
    """As in a container."""
    mount = find_cgroup("auto")
    script = f"mount --bind {mount} {mount}; mount -o remount,ro,bind {mount}"
    _, found = examine(lab, agent, *RIGHTS, script=script)
    assert found["redirect"]["ok"]
    assert found["redirect"]["detail"] == "a test program of this command redirected a test call"


def test_without_rights_doctor_names_what_is_missing(lab: Lab, agent: Agent) -> None:
    code, found = examine(lab, agent, "setpriv", "--bounding-set=-all")
    assert code == 1
    assert {"kernel", "rights", "redirect"} <= set(wrong(found))
    assert found["rights"]["detail"] == "CAP_NET_ADMIN is missing; CAP_BPF is missing"
    assert "capabilities" in found["rights"]["remedy"]


def test_a_closer_that_does_not_run_is_wrong(lab: Lab, agent: Agent) -> None:
    code, found = examine(lab, agent)
    assert (code, wrong(found)) == (1, ["closer"])
    assert "does not run on this node" in found["closer"]["detail"] or "last alive" in found["closer"]["detail"]
    assert "redirect.close_stale_sockets" in found["closer"]["remedy"]


@pytest.mark.usefixtures("closer")
def test_a_policy_that_is_invalid_and_a_map_that_is_full_are_named(
    lab: Lab, agent: Agent, pods: list[PodProcess]
) -> None:
    ports = tuple((53 + i, "UDP") for i in range(8))
    lab.write("objects", manifests.pod(pods[0]), manifests.policy("vip", ports=ports))
    wait_until(lambda: agent.states() == {"vip": "Active"}, "active")
    lab.write("broken", manifests.policy("broken", ip="169.254.0.92", redirectQosLimit=-1))
    wait_until(lambda: agent.states() == {"vip": "Active", "broken": "Invalid"}, "one is in force")
    code, found = examine(lab, agent)
    assert (code, wrong(found)) == (1, ["maps", "policies"])
    assert "backends has 8 of 8 rows in use (datapath.max_backends)" in found["maps"]["detail"]
    assert "broken is Invalid: spec.config.redirectQosLimit" in found["policies"]["detail"]


@pytest.mark.usefixtures("closer")
def test_another_program_that_runs_before_ours_is_named(lab: Lab, agent: Agent) -> None:
    with libbpf.opened_pin(lab.bpffs / "links" / "connect4") as link:
        libbpf.link_detach(link)
    code, found = examine(lab, agent)
    assert (code, wrong(found)) == (1, ["attached"])
    assert found["attached"]["detail"] == "no program is attached at connect4"
    with foreign_programs(lab.cgroup, "192.0.2.1", "192.0.2.2") as theirs:
        (lab.bpffs / "links" / "connect4").unlink()
        with libbpf.opened_pin(next(lab.bpffs.glob("*/programs/connect4"))) as program:
            _attach_last(program, lab.cgroup, lab.bpffs / "links" / "connect4")
        code, found = examine(lab, agent)
    assert (code, wrong(found)) == (1, ["first"])
    assert found["first"]["detail"].startswith(f"connect4: {theirs['connect4'][0]} runs before ours on {lab.cgroup}")
    assert "run.py detach" in found["first"]["remedy"]
    agent.terminate()
    agent.start()


def _attach_last(program: int, cgroup: Path, pin: Path) -> None:
    """As on a kernel that does not know BPF_F_BEFORE."""
    from bpf.build import HOOKS  # noqa: PLC0415
    from bpf.cgroups.hierarchy import opened_cgroup  # noqa: PLC0415

    with opened_cgroup(cgroup) as directory:
        libbpf.pin(libbpf.link_create(program, directory, HOOKS["connect4"], 0), pin)


def test_without_an_agent_the_lease_and_the_agent_are_named(lab: Lab, agent: Agent) -> None:
    agent.kill()
    with installed_maps(lab) as maps:
        maps.renew_lease(1)  # when the machine booted; 0 would mean that there is no lease
    code, found = examine(lab, agent)
    agent.start()
    assert (code, wrong(found)) == (1, ["lease", "agent"])
    assert list(found) == [*CHECKS, "agent"]
    assert found["agent"]["detail"].startswith("no agent answers at")


def test_text_ends_with_the_remedies(lab: Lab, agent: Agent) -> None:
    done = agent.command("doctor", within=in_cgroup(lab))
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1 : len(CHECKS) + 1]] == CHECKS
    assert lines[-2] == "what to do:"
    assert lines[-1].startswith("closer: ")
    assert done.returncode == 1
