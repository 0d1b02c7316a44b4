"""`log.redirects`: decisions about calls, which the agent writes to its standard output."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.lab import VIP, Lab, PodProcess
from tests.lab.processes import wait_until

FAILING = ("-m", "tests.lab.failing_agent")


@pytest.fixture(scope="module")
def start(lab: Lab) -> Iterator[Callable[..., Agent]]:
    """Starts an agent with that `log.redirects` in place of the one before, whose programs it adopts."""
    made: list[Agent] = []

    def replace(redirects: str, **options: Any) -> Agent:
        for each in made[-1:]:
            each.terminate()
        made.append(Agent(lab, {"log__redirects": redirects}))
        made[-1].start(program=FAILING, **options)
        return made[-1]

    yield replace
    for each in made[-1:]:
        each.terminate()
        each.command("detach")


@pytest.fixture(autouse=True)
def in_force(lab: Lab, pods: list[PodProcess], client: PodProcess) -> None:
    lab.write("pods", manifests.pod(pods[0]), manifests.pod(client, app="other"))
    lab.write("policies", manifests.policy("vip"))


def records(agent: Agent) -> list[dict[str, Any]]:
    """The lines of JSON in what the agent writes; its log is text."""
    lines = agent.log.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def await_records(agent: Agent, caller: PodProcess) -> list[dict[str, Any]]:
    """Calls until calls are recorded, then makes one last call, and waits for its record."""
    wait_until(lambda: agent.states() == {"vip": "Active"} and "cgroup" not in agent.message("vip"), "in force")
    before = records(agent)

    def is_recorded() -> bool:
        caller.do("udp", address=VIP, port=53)
        return any("hook" in each for each in records(agent)[len(before) :])  # not only a count of lost ones

    wait_until(is_recorded, "a call is recorded")
    caller.do("udp", address=VIP, port=53, connected=True)
    wait_until(lambda: "connect4" in [each.get("hook") for each in records(agent)[len(before) :]], "the last call is")
    return records(agent)


def await_policy(agent: Agent, caller: PodProcess, name: str) -> None:
    """Calls until a record names the policy."""
    wait_until(lambda: agent.states() == {name: "Active"}, "active")

    def is_recorded() -> bool:
        caller.do("udp", address=VIP, port=53)
        return bool(records(agent)) and records(agent)[-1].get("policy") == name

    wait_until(is_recorded, f"{name} is recorded")


def test_with_none_nobody_watches(start: Callable[..., Agent], client: PodProcess) -> None:
    agent = start("none")
    wait_until(lambda: agent.states() == {"vip": "Active"}, "active")
    assert client.do("udp", address=VIP, port=53)["who"] == "pod0"
    assert not agent.is_watched()
    assert "DecisionRecorder" not in {each["name"] for each in agent.status()["actors"]}
    assert records(agent) == []


def test_with_all_each_decision_is_recorded_as_monitor_prints_it_also_after_a_restart(
    start: Callable[..., Agent], client: PodProcess, pods: list[PodProcess]
) -> None:
    agent = start("all")
    await_records(agent, pods[0])
    agent.fail("DecisionRecorder")
    wait_until(lambda: agent.restarts("DecisionRecorder") == 1, "it is restarted")
    redirect = await_records(agent, client)[-1]
    assert redirect == {
        "time": redirect["time"],
        "hook": "connect4",
        "client": "default/client",
        "client_netns": client.do("cookie")["cookie"],
        "pid": client.pid,
        "command": redirect["command"],
        "frontend": f"{VIP}:53/UDP",
        "policy": "vip",
        "verdict": "redirect",
        "reason": None,
        "backend": f"{pods[0].address}:53",
    }
    passed = await_records(agent, pods[0])[-1]
    expected = {"client": "default/pod0", "verdict": "pass", "reason": "from_backend", "backend": None}
    assert passed.items() >= expected.items()


def test_a_policy_that_takes_over_the_id_of_another_one_has_its_own_name_in_records(
    start: Callable[..., Agent], lab: Lab, client: PodProcess
) -> None:
    agent = start("all")
    for name in ("first", "second"):
        made = manifests.policy(name)
        made["metadata"]["annotations"] = {"balancing.elf.io/serviceId": "77"}
        lab.write("policies", made)
        await_policy(agent, client, name)


def test_with_passes_only_passes_are_recorded_and_what_exceeds_the_rate_is_counted(
    start: Callable[..., Agent], client: PodProcess, pods: list[PodProcess]
) -> None:
    agent = start("passes")
    await_records(agent, pods[0])
    client.do("udp", address=VIP, port=53)
    before = len(records(agent))
    pods[0].do("sends", address=VIP, port=53, calls=20_000, until=0.0)

    def accounted() -> int:
        return sum(each.get("lost", 1) for each in records(agent)[before:])

    wait_until(lambda: accounted() == 20_000, "each call is recorded, or counted as lost")
    assert {each.get("reason", "lost") for each in records(agent)} == {"from_backend", "lost"}


def test_an_output_that_takes_nothing_is_reported_and_harms_nothing(
    start: Callable[..., Agent], client: PodProcess
) -> None:
    agent = start("all", within=("sh", "-c", 'exec "$@" >/dev/full', "sh"))
    wait_until(lambda: agent.states() == {"vip": "Active"}, "active")

    def is_reported() -> bool:
        assert client.do("udp", address=VIP, port=53)["who"] == "pod0"
        return "cannot write records to standard output: " in agent.log.read_text()

    wait_until(is_reported, "the log says so")
    assert agent.fetch("/readyz") == "ok\n"
    assert {each["restarts"] for each in agent.status()["actors"]} == {0}
