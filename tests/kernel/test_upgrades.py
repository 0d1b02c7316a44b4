"""Open sockets keep their way back and their backend when the programs are replaced (P15, P16)."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.lab import VIP, Lab, PodProcess
from tests.lab.processes import ROOT, wait_until

_numbers = itertools.count(1000)


@pytest.fixture
def agents() -> Iterator[list[Agent]]:
    """The agents that have run, the newest last."""
    made: list[Agent] = []
    yield made
    made[-1].kill()
    made[-1].command("detach")


def start(lab: Lab, agents: list[Agent], *, root: Path = ROOT, **datapath: object) -> Agent:
    """Ends the present agent and starts another in its place."""
    settings: dict[str, object] = {"cgroup": str(lab.cgroup), "bpffs": str(lab.bpffs), **datapath}
    agent = Agent(lab, {f"datapath__{name}": value for name, value in settings.items()})
    if agents:
        agents[-1].terminate()
    agents.append(agent)
    agent.start(root=root)
    wait_until(lambda: agent.states() == {"vip": "Active"}, "the policy is in force")
    return agent


def changed_checkout(lab: Lab, name: str) -> Path:
    """A copy of the agent in which one file of the programs has another text, so that it is another build."""
    copy = lab.folder / f"checkout-{next(_numbers)}"
    for part in ("actors", "bpf", "config", "k8s"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run.py", copy)
    with (copy / "bpf" / "programs" / name).open("a") as file:
        file.write(f"/* {next(_numbers)} */\n")
    return copy


Replacement = Callable[[Lab, list[Agent]], object]


def other_sizes(lab: Lab, agents: list[Agent]) -> None:
    start(lab, agents, max_frontends=next(_numbers))


def other_programs(lab: Lab, agents: list[Agent]) -> None:
    start(lab, agents, root=changed_checkout(lab, "lib_limit.c"))


def other_rows(lab: Lab, agents: list[Agent]) -> None:
    start(lab, agents, root=changed_checkout(lab, "types.h"))


def other_socket_state(lab: Lab, agents: list[Agent]) -> None:
    """This build has socket storages of its own, so it knows no socket that was redirected before it."""
    start(lab, agents, root=changed_checkout(lab, "sockets.h"))


def first_build(lab: Lab, agents: list[Agent]) -> None:
    start(lab, agents)


SAME_STATE: dict[str, list[Replacement]] = {
    "other map sizes, three times": [other_sizes] * 3,
    "other programs, then other rows, then other sizes": [other_programs, other_rows, other_sizes],
    "other programs and a roll-back": [other_programs, first_build],
}
OTHER_STATE: dict[str, list[Replacement]] = {
    "another socket state, twice": [other_socket_state] * 2,
    "another socket state and a roll-back": [other_socket_state, first_build],
    "another socket state between other sizes": [other_sizes, other_socket_state, other_sizes],
}


@pytest.fixture
def redirected(lab: Lab, client: PodProcess, pods: list[PodProcess], agents: list[Agent]) -> PodProcess:
    """A client whose sockets were redirected by the first agent."""
    lab.write("pods", *map(manifests.pod, pods))
    policy = manifests.policy("vip", ports=((53, "UDP"), (80, "TCP")))
    policy["spec"]["backend"]["toPorts"][1]["port"] = 80
    lab.write("policies", policy)
    start(lab, agents)
    client.do("open", key="stream", protocol="TCP")
    client.do("connect", key="stream", address=VIP, port=80)
    client.do("open", key="connected")
    client.do("connect", key="connected", address=VIP, port=53)
    client.do("open", key="unconnected")
    client.do("send", key="unconnected", address=VIP, port=53)
    return client


@pytest.mark.parametrize("replacements", (SAME_STATE | OTHER_STATE).values(), ids=SAME_STATE | OTHER_STATE)
def test_sockets_see_their_frontend_through_replacements(
    lab: Lab, agents: list[Agent], redirected: PodProcess, replacements: list[Replacement]
) -> None:
    before = {key: redirected.do("ask", key=key) for key in ("stream", "connected")}
    for replace in replacements:
        replace(lab, agents)
        for key, answer in before.items():
            assert redirected.do("ask", key=key) == answer
    assert redirected.do("receive", key="unconnected")["source"] == [VIP, 53], "the reply to the very first datagram"


@pytest.mark.parametrize("replacements", SAME_STATE.values(), ids=SAME_STATE)
def test_sockets_keep_their_backend_through_replacements(
    lab: Lab, agents: list[Agent], redirected: PodProcess, replacements: list[Replacement]
) -> None:
    kept = redirected.do("receive", key="unconnected")
    for replace in replacements:
        replace(lab, agents)
        answers = redirected.do("ask_all", key="unconnected", targets=[(VIP, 53)] * 10)["answers"]
        assert answers == [kept] * 10


def test_sockets_see_their_frontend_when_the_agent_moves_to_another_cgroup(
    lab: Lab, agents: list[Agent], redirected: PodProcess
) -> None:
    before = redirected.do("ask", key="connected")
    inner = lab.cgroup / "kubepods" / "other"
    inner.mkdir(parents=True, exist_ok=True)
    start(lab, agents, cgroup=str(inner))
    assert redirected.do("ask", key="connected") == before
    start(lab, agents)
    assert redirected.do("ask", key="connected") == before


def test_detach_leaves_nothing_of_any_build(lab: Lab, agents: list[Agent], redirected: PodProcess) -> None:
    assert redirected.do("ask", key="connected")["source"] == [VIP, 53]
    other_socket_state(lab, agents)
    assert list((lab.bpffs / "links").glob("*-former-*"))
    agents[-1].terminate()
    assert agents[-1].command("detach").returncode == 0
    assert not lab.bpffs.exists()
    start(lab, agents)
