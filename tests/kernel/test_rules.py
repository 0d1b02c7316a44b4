"""Conflicts, exemptions, limit and affinity on the real kernel (P8, P11 to P14)."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.lab import REMOTE, VIP, Lab, PodProcess
from tests.lab.processes import wait_until


@pytest.fixture
def backend(lab: Lab, pods: list[PodProcess]) -> PodProcess:
    lab.write("pod", manifests.pod(pods[0]))
    return pods[0]


@pytest.mark.parametrize("first", ["old", "new"])
def test_of_two_policies_in_conflict_the_older_works_whichever_comes_first(
    lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess], first: str
) -> None:
    lab.write("pods", manifests.pod(pods[0], app="a"), manifests.pod(pods[1], app="b"))
    policies = {
        "old": manifests.policy("old", app="a", created="2026-01-01T00:00:00Z"),
        "new": manifests.policy("new", app="b", created="2026-01-02T00:00:00Z"),
    }
    lab.write(first, policies.pop(first))
    wait_until(lambda: agent.states() == {first: "Active"}, "the first is active")
    ((second, manifest),) = policies.items()
    lab.write(second, manifest)
    wait_until(lambda: agent.states() == {"old": "Active", "new": "Conflict"}, "the older works")
    assert "old" in agent.message("new")
    assert client.do("udp", address=VIP, port=53)["who"] == "pod0"
    lab.remove("old")
    wait_until(lambda: agent.states() == {"new": "Active"}, "the other takes over")
    assert client.do("udp", address=VIP, port=53)["who"] == "pod1"


def test_a_backend_is_not_redirected_to_itself(lab: Lab, agent: Agent, backend: PodProcess, client: PodProcess) -> None:
    lab.write("policies", manifests.policy("vip"))
    wait_until(lambda: agent.states() == {"vip": "Active"}, "active")
    wait_until(lambda: "cgroup" not in agent.message("vip"), "the Pod's cgroup is found")
    assert backend.do("udp", address=VIP, port=53)["who"] == REMOTE
    assert client.do("udp", address=VIP, port=53)["who"] == "pod0"
    assert agent.inspect("policies")[0]["passes"]["from_backend"] == 1


def test_a_backend_is_redirected_where_the_policy_says_so(lab: Lab, agent: Agent, backend: PodProcess) -> None:
    lab.write("policies", manifests.policy("vip", skipRedirectFromBackend=False))
    wait_until(lambda: agent.states() == {"vip": "Active"}, "active")
    assert backend.do("udp", address=VIP, port=53)["who"] == "pod0"


@pytest.mark.usefixtures("backend")
def test_host_processes_are_redirected_unless_the_policy_says_no(lab: Lab, agent: Agent) -> None:
    host = lab.host_process("host")
    lab.write("policies", manifests.policy("vip"))
    wait_until(lambda: agent.states() == {"vip": "Active"}, "active")
    assert host.do("udp", address=VIP, port=53)["who"] == "pod0"
    lab.write("policies", manifests.policy("vip", redirectFromHost=False))
    wait_until(lambda: host.do("udp", address=VIP, port=53)["who"] == REMOTE, "the host takes the normal way")
    assert agent.inspect("policies")[0]["passes"]["from_host"] >= 1


@pytest.mark.usefixtures("backend")
def test_exactly_as_many_calls_as_the_limit_allows_are_redirected_on_two_cpus(
    lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess]
) -> None:
    """Makes 2,000 calls over two frontends, within one second or, on a slow machine, several."""
    limit = 100
    lab.write("policies", manifests.policy("vip", ports=((53, "UDP"), (54, "UDP")), redirectQosLimit=limit))
    wait_until(lambda: agent.states() == {"vip": "Active"}, "active")
    begin = time.monotonic() + 0.5
    begin += 1.02 - begin % 1  # just after the beginning of a window
    callers = ((client, 53), (pods[1], 54))
    for process, port in callers:
        process.begin("sends", address=VIP, port=port, calls=1000, until=begin)
    answers = [process.end() for process, _ in callers]
    calls = sum((Counter(answer["in_second"]) for answer in answers), Counter[str]())
    # A call that ends in another second than it began in may count in either.
    edges = sum(answer["edges"] for answer in answers)
    least = sum(min(limit, each) for each in calls.values())
    (row,) = agent.inspect("policies")
    assert least <= row["redirects"] <= min(limit * len(calls), least + edges)
    assert row["redirects"] + row["passes"]["qos"] == 2000


def test_a_client_keeps_its_backend_by_affinity_and_gets_another_at_once_when_it_goes(
    lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess]
) -> None:
    lab.write("pods", *map(manifests.pod, pods))
    lab.write("policies", manifests.policy("vip", sessionAffinity="ClientIP", sessionAffinityTimeoutSeconds=2))
    wait_until(lambda: len(agent.inspect("backends")) == 3, "three backends")
    tally = client.do("burst", targets=[(VIP, 53)], calls=50, threads=2)["tally"]
    assert list(tally.values()) == [50]
    (held,) = agent.inspect("affinity")
    assert held["client_netns"] == client.do("cookie")["cookie"]
    (chosen,) = tally
    left = [each for each in pods if each.name != chosen]
    lab.write("pods", *map(manifests.pod, left))
    wait_until(lambda: len(agent.inspect("backends")) == 2, "two backends")
    moved = client.do("burst", targets=[(VIP, 53)], calls=50, threads=1)["tally"]
    assert list(moved.values()) == [50]
    assert chosen not in moved
    wait_until(lambda: agent.inspect("affinity") == [], "the affinity expires", 5)
