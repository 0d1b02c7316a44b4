"""An agent that hears nothing from its API server: what it reports, and that a lease which ran out is not renewed.

The server is the laboratory's (tests.lab.api), which lists only what the test sets.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.api import ApiServer, api_server
from tests.lab.lab import REMOTE, VIP, Lab, Manifest, PodProcess, answerer
from tests.lab.processes import wait_until

LEASE_SECONDS = 3


@pytest.fixture
def server(lab: Lab) -> Iterator[tuple[ApiServer, Path]]:
    with api_server(lab) as made:
        yield made


@pytest.fixture
def api(server: tuple[ApiServer, Path]) -> ApiServer:
    return server[0]


@pytest.fixture
def agent_of_api(lab: Lab, server: tuple[ApiServer, Path], pods: list[PodProcess]) -> Iterator[Agent]:
    """Started for one test. Its source is the laboratory's API server, which has a policy and two Pods."""
    api, kubeconfig = server
    api.set_objects(*policy_and(pods[:2]))
    made = lab.agent(
        datapath__lease_seconds=LEASE_SECONDS, source__kind="kubernetes", source__kubeconfig=str(kubeconfig)
    )
    yield made
    made.kill()


@pytest.fixture(scope="module", autouse=True)
def detached_in_the_end(lab: Lab) -> Iterator[None]:
    """Detaches once for all tests, since each agent adopts the programs of the one before."""
    yield
    lab.agents[-1].command("detach")


def policy_and(pods: list[PodProcess]) -> list[Manifest]:
    return [manifests.policy("dns"), *map(manifests.pod, pods)]


def stop_until_the_lease_ends(agent: Agent, client: PodProcess) -> None:
    assert agent.process
    agent.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: answerer(client) == REMOTE, "the lease is over")


def resume(agent: Agent) -> None:
    assert agent.process
    agent.process.send_signal(signal.SIGCONT)


def test_an_agent_that_was_stopped_lists_again_before_it_redirects(
    agent_of_api: Agent, api: ApiServer, client: PodProcess, pods: list[PodProcess]
) -> None:
    """Its watches are silent, so only a new listing can tell it about the Pod that was deleted."""
    assert {answerer(client) for _ in range(20)} == {"pod0", "pod1"}
    stop_until_the_lease_ends(agent_of_api, client)
    api.set_objects(*policy_and(pods[1:2]))
    client.do("load_start", address=VIP, port=53, protocol="UDP", threads=2)
    resume(agent_of_api)
    wait_until(lambda: answerer(client) != REMOTE, "calls are redirected again", 20)
    assert set(client.do("load_stop")["tally"]) == {REMOTE, "pod1"}
    assert agent_of_api.fetch("/readyz") == "ok\n"


@pytest.mark.parametrize("refused", [True, False], ids=["it refuses the agent", "it does not answer"])
def test_while_the_sources_cannot_be_listed_the_lease_is_not_renewed_and_readyz_says_so(
    agent_of_api: Agent, api: ApiServer, client: PodProcess, pods: list[PodProcess], refused: bool
) -> None:
    stop_until_the_lease_ends(agent_of_api, client)
    api.set_objects(*policy_and(pods[1:2]))
    if refused:
        api.forbidden = {"pods"}
    else:
        api.answering.clear()
    resume(agent_of_api)
    wait_until(lambda: "the lease ran out" in agent_of_api.fetch("/readyz"), "/readyz says so")
    if refused:
        wait_until(lambda: "the right to list pods is missing" in agent_of_api.fetch("/readyz"), "/readyz says why")
    assert agent_of_api.status()["datapath"]["lease_withheld"]
    assert {answerer(client) for _ in range(20)} == {REMOTE}
    api.forbidden = set()
    api.answering.set()
    wait_until(lambda: answerer(client) == "pod1", "calls are redirected to the Pod that is left", 30)
    wait_until(lambda: agent_of_api.fetch("/readyz") == "ok\n", "the agent is ready")


def test_an_agent_that_is_refused_is_not_ready_after_a_minute_and_goes_on_redirecting(
    agent_of_api: Agent, api: ApiServer, client: PodProcess
) -> None:
    heard = agent_of_api.metric('localredirect_source_last_event_seconds{source="endpoints"}')
    api.forbidden = {"pods"}
    api.break_watches()
    wait_until(lambda: stream(agent_of_api, "endpoints")["state"] == "refused", "/status says so at once")
    assert agent_of_api.fetch("/readyz") == "ok\n", "it is still ready at first"
    wait_until(lambda: "the right to watch pods is missing" in agent_of_api.fetch("/readyz"), "/readyz says so", 90)
    wait_until(lambda: "has been refused for" in agent_of_api.log.read_text(), "the log says so at the next check")
    assert stream(agent_of_api, "policies")["state"] == "ok"
    assert agent_of_api.metric('localredirect_source_last_event_seconds{source="endpoints"}') - heard < 30
    assert answerer(client) != REMOTE
    api.forbidden = set()
    wait_until(lambda: agent_of_api.fetch("/readyz") == "ok\n", "the agent is ready again", 30)


def stream(agent: Agent, name: str) -> dict[str, object]:
    streams: list[dict[str, object]] = agent.status()["source"]["streams"]
    return next(each for each in streams if each["name"] == name)
