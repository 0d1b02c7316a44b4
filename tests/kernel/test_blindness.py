"""An agent that hears nothing of its API server: what it says, and that a lease that ran out stays out.

The server is the laboratory's (tests.lab.api): it says what the test wants, and nothing by itself.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import manifests
from tests.lab.api import ApiServer, api_server
from tests.lab.lab import REMOTE, VIP, Agent, Lab, Manifest, PodProcess, wait_until

LEASE_SECONDS = 3


@pytest.fixture
def server(lab: Lab) -> Iterator[tuple[ApiServer, Path]]:
    with api_server(lab) as made:
        yield made


@pytest.fixture
def api(server: tuple[ApiServer, Path]) -> ApiServer:
    return server[0]


@pytest.fixture
def agent(lab: Lab, server: tuple[ApiServer, Path], pods: list[PodProcess]) -> Iterator[Agent]:
    api, kubeconfig = server
    api.holds(*world(pods[:2]))
    made = lab.agent(
        datapath__lease_seconds=LEASE_SECONDS, source__kind="kubernetes", source__kubeconfig=str(kubeconfig)
    )
    yield made
    made.kill()


@pytest.fixture(scope="module", autouse=True)
def detached_in_the_end(lab: Lab) -> Iterator[None]:
    """The agents of these tests adopt each other's programs."""
    yield
    lab.agents[-1].command("detach")


def world(pods: list[PodProcess]) -> list[Manifest]:
    return [manifests.policy("dns"), *map(manifests.pod, pods)]


def who(client: PodProcess) -> str:
    return str(client.do("udp", address=VIP, port=53)["who"])


def stop_for_longer_than_the_lease(agent: Agent, client: PodProcess) -> None:
    assert agent.process
    agent.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: who(client) == REMOTE, "the lease is over")


def wake(agent: Agent) -> None:
    assert agent.process
    agent.process.send_signal(signal.SIGCONT)


def test_an_agent_that_wakes_up_asks_again_before_it_redirects(
    agent: Agent, api: ApiServer, client: PodProcess, pods: list[PodProcess]
) -> None:
    """Its watches are silent: nothing else tells it of the Pod that went."""
    assert {who(client) for _ in range(20)} == {"pod0", "pod1"}
    stop_for_longer_than_the_lease(agent, client)
    api.holds(*world(pods[1:2]))
    client.do("load_start", address=VIP, port=53, protocol="UDP", threads=2)
    wake(agent)
    wait_until(lambda: who(client) != REMOTE, "calls are redirected again", 20)
    assert set(client.do("load_stop")["tally"]) == {REMOTE, "pod1"}
    assert agent.fetch("/readyz") == "ok\n"


@pytest.mark.parametrize("refused", [True, False], ids=["it refuses us", "it does not answer"])
def test_while_the_server_tells_nothing_the_lease_stays_out_and_that_is_said(
    agent: Agent, api: ApiServer, client: PodProcess, pods: list[PodProcess], refused: bool
) -> None:
    stop_for_longer_than_the_lease(agent, client)
    api.holds(*world(pods[1:2]))
    if refused:
        api.refuses = {"pods"}
    else:
        api.answers.clear()
    wake(agent)
    wait_until(lambda: "the lease ran out" in agent.fetch("/readyz"), "it is said")
    if refused:
        wait_until(lambda: "the right to list pods is missing" in agent.fetch("/readyz"), "and why")
    assert agent.status()["datapath"]["lease_withheld"]
    assert {who(client) for _ in range(20)} == {REMOTE}
    api.refuses = set()
    api.answers.set()
    wait_until(lambda: who(client) == "pod1", "what is there now is redirected to", 30)
    wait_until(lambda: agent.fetch("/readyz") == "ok\n", "it is ready")


@pytest.mark.timeout(200)
def test_an_agent_that_is_refused_says_so_after_a_minute_and_redirects_on(
    agent: Agent, api: ApiServer, client: PodProcess
) -> None:
    heard = agent.metric('localredirect_source_last_event_seconds{source="endpoints"}')
    api.refuses = {"pods"}
    api.break_watches()
    wait_until(lambda: stream(agent, "endpoints")["state"] == "refused", "/status says so at once")
    assert agent.fetch("/readyz") == "ok\n", "a moment is no minute"
    wait_until(lambda: "the right to watch pods is missing" in agent.fetch("/readyz"), "/readyz says so", 90)
    wait_until(lambda: "has been refused for" in agent.log.read_text(), "the log says so with the next look")
    assert stream(agent, "policies")["state"] == "ok"
    assert agent.metric('localredirect_source_last_event_seconds{source="endpoints"}') - heard < 30
    assert who(client) != REMOTE
    api.refuses = set()
    wait_until(lambda: agent.fetch("/readyz") == "ok\n", "it is well again", 30)


def stream(agent: Agent, name: str) -> dict[str, object]:
    streams: list[dict[str, object]] = agent.status()["source"]["streams"]
    return next(each for each in streams if each["name"] == name)
