"""Trying a policy: mode Shadow, and a percentage of the clients (P21)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bpf.maps.hashes import client_place
from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.closer import Closer
from tests.lab.lab import REMOTE, VIP, Lab, PodProcess, answerer
from tests.lab.processes import wait_until

CALLS = 20


def put_in_force(lab: Lab, agent: Agent, pods: list[PodProcess], **config: Any) -> None:
    """Puts a policy for VIP over these Pods in force, or changes it."""
    lab.write("pods", *map(manifests.pod, pods))
    lab.write("policies", manifests.policy("vip", **config))
    wanted = (
        config.get("mode", "Redirect"),
        config.get("percentage", 100),
        config.get("sessionAffinityTimeoutSeconds", 0),
        {f"{pod.address}:53" for pod in pods},
    )
    wait_until(lambda: installed(agent) == wanted, f"{wanted} is installed")
    limit = config.get("redirectQosLimit", 0)
    wait_until(lambda: policy_row(agent)["qos_limit"] == limit, "its limit is installed")


def installed(agent: Agent) -> tuple[object, ...]:
    rows = [row for row in agent.inspect("frontends") if row["policy"] == "vip"]
    if len(rows) != 1:
        return ()
    return rows[0]["mode"], rows[0]["percentage"], rows[0]["affinity_seconds"], set(rows[0]["backends"])


def policy_row(agent: Agent) -> dict[str, Any]:
    return next(row for row in agent.inspect("policies") if row["policy"] == "vip")


def counted(agent: Agent) -> dict[str, int]:
    """Redirects, and passes by reason; those that are not zero."""
    row = policy_row(agent)
    return {what: number for what, number in {"redirects": row["redirects"], **row["passes"]}.items() if number}


def growth(agent: Agent, before: dict[str, int]) -> dict[str, int]:
    now = counted(agent)
    return {what: now[what] - before.get(what, 0) for what in now if now[what] != before.get(what, 0)}


@pytest.fixture(scope="module")
def caller(lab: Lab, client: PodProcess) -> PodProcess:
    """A client that is redirected at 99 % and not at 1 %, as nearly all are."""

    def candidates() -> Iterator[PodProcess]:
        yield client
        yield from (lab.pod(f"caller-{number}") for number in range(10))

    return next(each for each in candidates() if 1 <= place_of(each) < 99)


def place_of(process: PodProcess) -> int:
    return client_place(process.do("cookie")["cookie"])


@pytest.fixture
def shadowed(lab: Lab, agent: Agent, pods: list[PodProcess]) -> None:
    put_in_force(lab, agent, pods, mode="Shadow")


# --- mode Shadow


@pytest.mark.usefixtures("shadowed")
@pytest.mark.parametrize("connected", [False, True], ids=["unconnected", "connected"])
def test_in_shadow_mode_no_call_is_changed_and_each_is_counted(
    agent: Agent, client: PodProcess, connected: bool
) -> None:
    before = counted(agent)
    answers = [client.do("udp", address=VIP, port=53, connected=connected) for _ in range(CALLS)]
    assert answers == [{"who": REMOTE, "source": [VIP, 53]}] * CALLS
    assert growth(agent, before) == {"shadow": CALLS}


@pytest.mark.usefixtures("shadowed")
def test_status_says_that_the_policy_is_in_shadow_mode(agent: Agent) -> None:
    wait_until(lambda: "spec.config.mode is Shadow" in agent.message("vip"), "the message says so")
    (policy,) = agent.status()["policies"]
    assert (policy["state"], policy["mode"], policy["percentage"]) == ("Active", "Shadow", 100)


@pytest.mark.usefixtures("shadowed")
def test_in_shadow_mode_the_policys_own_pods_are_counted_as_such(agent: Agent, pods: list[PodProcess]) -> None:
    wait_until(lambda: "no cgroup" not in agent.message("vip"), "the Pods' cgroups are found")
    before = counted(agent)
    assert answerer(pods[0]) == REMOTE
    assert growth(agent, before) == {"from_backend": 1}


def test_in_shadow_mode_the_limit_counts_calls(
    lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess]
) -> None:
    put_in_force(lab, agent, pods, mode="Shadow", redirectQosLimit=5)
    before = counted(agent)
    seconds = client.do("sends", address=VIP, port=53, calls=1000, until=0.0)["in_second"]
    found = growth(agent, before)
    assert found.keys() == {"shadow", "qos"}
    assert found["shadow"] + found["qos"] == 1000
    assert 5 <= found["shadow"] <= 5 * (len(seconds) + 1)


def test_in_shadow_mode_a_client_gets_a_backend_that_it_has_once_calls_are_redirected(
    lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess]
) -> None:
    affinity = {"sessionAffinity": "ClientIP", "sessionAffinityTimeoutSeconds": 600}
    put_in_force(lab, agent, pods, mode="Shadow", **affinity)
    before = policy_row(agent)["affinity_hits"]
    assert {answerer(client) for _ in range(CALLS)} == {REMOTE}
    (held,) = agent.inspect("affinity")
    assert policy_row(agent)["affinity_hits"] == before + CALLS - 1
    put_in_force(lab, agent, pods, **affinity)
    (kept,) = {answerer(client) for _ in range(CALLS)}
    assert held["backend"] == next(f"{pod.address}:53" for pod in pods if pod.name == kept)


@pytest.mark.parametrize("trying", [{"mode": "Shadow"}, {"percentage": 1}], ids=["Shadow", "a percentage"])
def test_a_socket_that_was_redirected_takes_the_normal_way_when_its_client_no_longer_is(
    lab: Lab, agent: Agent, caller: PodProcess, pods: list[PodProcess], trying: dict[str, Any]
) -> None:
    """Late replies of its Pod still show the frontend (P15), and it has the same Pod again afterwards (P16)."""
    put_in_force(lab, agent, pods)
    caller.do("open", key="udp")
    first = caller.do("ask", key="udp", address=VIP, port=53)["who"]
    pod = next(pod for pod in pods if pod.name == first)
    pod.do("hold_answers")
    caller.do("send", key="udp", address=VIP, port=53)
    put_in_force(lab, agent, pods, **trying)
    answers = caller.do("ask_all", key="udp", targets=[(VIP, 53)] * CALLS)["answers"]
    assert answers == [{"who": REMOTE, "source": [VIP, 53]}] * CALLS
    pod.do("give_answers")
    assert caller.do("receive", key="udp") == {"who": first, "source": [VIP, 53]}
    put_in_force(lab, agent, pods)
    assert caller.do("ask", key="udp", address=VIP, port=53)["who"] == first


@pytest.mark.parametrize("trying", [{"mode": "Shadow"}, {"percentage": 1}], ids=["Shadow", "a percentage"])
def test_a_connected_socket_stays_with_its_pod_until_it_connects_again(
    lab: Lab, agent: Agent, caller: PodProcess, pods: list[PodProcess], trying: dict[str, Any]
) -> None:
    put_in_force(lab, agent, pods)
    caller.do("open", key="udp")
    caller.do("connect", key="udp", address=VIP, port=53)
    before = caller.do("ask", key="udp")
    put_in_force(lab, agent, pods, **trying)
    assert caller.do("ask", key="udp") == before
    caller.do("connect", key="udp", address=VIP, port=53)
    assert caller.do("ask", key="udp") == {"who": REMOTE, "source": [VIP, 53]}


@pytest.mark.parametrize("trying", [{"mode": "Shadow"}, {"percentage": 1}], ids=["Shadow", "a percentage"])
def test_the_closer_leaves_such_a_socket_alone_while_its_pod_is_usable(
    lab: Lab, agent: Agent, caller: PodProcess, pods: list[PodProcess], trying: dict[str, Any]
) -> None:
    """A socket of another policy shows that the closer has looked at all sockets since."""
    other = manifests.policy("other", ports=((54, "UDP"),), app="other")
    for each in (manifests.pod(pods[1], app="other"), other):
        lab.write(f"other-{each['kind']}", each)
    put_in_force(lab, agent, pods[:1])
    closer = Closer(lab, agent)
    try:
        closer.await_line("closing stale sockets for build")
        for key, port, who in (("kept", 53, "pod0"), ("other", 54, "pod1")):
            caller.do("open", key=key)
            caller.do("connect", key=key, address=VIP, port=port)
            assert caller.do("ask", key=key)["who"] == who
        put_in_force(lab, agent, pods[:1], **trying)
        lab.write("other-Pod", manifests.pod(pods[1], app="other", ready=False))
        assert caller.do("await_error", key="other") == {"reported": "ECONNABORTED"}
        assert caller.do("ask", key="kept")["who"] == "pod0"
        lab.write("pods", manifests.pod(pods[0], ready=False))
        assert caller.do("await_error", key="kept") == {"reported": "ECONNABORTED"}
    finally:
        closer.kill()


@pytest.mark.usefixtures("shadowed")
def test_a_socket_that_shadow_mode_has_seen_sees_the_pod_that_it_calls_itself(
    client: PodProcess, pods: list[PodProcess]
) -> None:
    client.do("open", key="udp")
    for target, who in (((VIP, 53), REMOTE), ((pods[0].address, 53), "pod0"), ((VIP, 53), REMOTE)):
        answer = client.do("ask", key="udp", address=target[0], port=target[1])
        assert answer == {"who": who, "source": list(target)}


# --- a percentage of the clients


def test_of_the_clients_that_percentage_is_redirected_and_those_at_a_lower_one_stay(
    lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess]
) -> None:
    """The host is a client like others."""
    clients = [client, lab.host_process("trying-host"), lab.pod("trying-0"), lab.pod("trying-1")]
    places = [place_of(each) for each in clients]
    for percentage in sorted({1, 10, 50, 99, *(place for place in places if place)}):
        put_in_force(lab, agent, pods[:1], percentage=percentage)
        before = counted(agent)
        answers = [answerer(each) for each in clients]
        assert answers == ["pod0" if place < percentage else REMOTE for place in places]
        expected = {"redirects": answers.count("pod0"), "percentage": answers.count(REMOTE)}
        assert growth(agent, before) == {what: number for what, number in expected.items() if number}
    message = f"1 frontend redirected to 1 local Pod for {percentage} % of the clients"
    wait_until(lambda: agent.message("vip") == message, "the message names the percentage")


def test_in_shadow_mode_clients_outside_the_percentage_are_counted_as_such(
    lab: Lab, agent: Agent, caller: PodProcess, pods: list[PodProcess]
) -> None:
    for percentage, reason in ((place_of(caller) + 1, "shadow"), (place_of(caller), "percentage")):
        put_in_force(lab, agent, pods, mode="Shadow", percentage=percentage)
        before = counted(agent)
        assert answerer(caller) == REMOTE
        assert growth(agent, before) == {reason: 1}
