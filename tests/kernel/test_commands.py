"""`run.py status` and `run.py inspect` beside a real agent, and `status` without one."""

from __future__ import annotations

import json

import pytest

from bpf.lifecycle.pins import LAYOUT
from run import VIEWS
from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.lab import VIP, Lab, PodProcess
from tests.lab.processes import wait_until


def within(lab: Lab) -> tuple[str, ...]:
    """The network of the node, in which the agent listens."""
    return ("nsenter", f"--net=/run/netns/{lab.node}")


def test_status_prints_what_the_agent_says_of_itself_and_its_policies(
    lab: Lab, agent: Agent, pods: list[PodProcess]
) -> None:
    lab.write("objects", manifests.pod(pods[0]), manifests.policy("vip"))
    wait_until(lambda: agent.states() == {"vip": "Active"}, "active")
    printed = agent.command("status", within=within(lab))
    assert printed.returncode == 0
    lines = printed.stdout.splitlines()
    assert lines[0].startswith("LocalRedirect ") and lines[0].endswith(" agent of node node")
    assert any(line.startswith("datapath: 8 hooks attached to ") for line in lines)
    assert lines[-1].split()[:4] == ["vip", "Active", f"{VIP}:53", f"{pods[0].address}:53"]
    document = json.loads(agent.command("status", "-o", "json", within=within(lab)).stdout)
    assert document["policies"] == agent.status()["policies"]


def test_inspect_prints_what_is_in_the_maps(lab: Lab, agent: Agent, pods: list[PodProcess]) -> None:
    lab.write("objects", manifests.pod(pods[0]), manifests.policy("vip"))
    wait_until(lambda: len(agent.inspect("frontends")) == 1, "the policy is installed")
    printed = agent.command("inspect", "-o", "json")
    assert printed.returncode == 0
    assert json.loads(printed.stdout) == {view: agent.inspect(view) for view in VIEWS}


@pytest.mark.parametrize("command", [["inspect", "policies"], ["explain", "--from", "host", "--to", f"{VIP}:53/UDP"]])
def test_rows_of_another_version_are_refused(lab: Lab, agent: Agent, command: list[str]) -> None:
    """Its rows may have other lengths and other fields, so what we read would be wrong."""
    build = lab.bpffs / agent.status()["build"]
    (layout,) = build.glob(f"{LAYOUT}*")
    theirs = layout.rename(layout.with_name(f"{LAYOUT}{'0' * 12}"))
    try:
        done = agent.command(*command)
    finally:
        theirs.rename(layout)
    assert done.returncode == 1
    assert "lays out its rows differently; use its own run.py" in done.stderr
    assert not done.stdout


def test_without_an_agent_status_fails_and_names_the_address(agent: Agent) -> None:
    """Asked from another network, where nobody listens."""
    done = agent.command("status")
    assert done.returncode == 1
    assert done.stderr.startswith(f"no agent answers at 127.0.0.1:{agent.health} (health.address and health.port)")
    assert not done.stdout
