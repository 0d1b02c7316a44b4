"""Any actor of a running agent may fail: no call fails, and the state after it is the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.lab import VIP, Lab, PodProcess
from tests.lab.processes import wait_until

ACTORS = (
    "PolicyWatcher",
    "ServiceWatcher",
    "EndpointWatcher",
    "ConflictResolver",
    "ContainerWatcher",
    "HealthChecker",
    "MapWriter",
    "QosTicker",
    "AffinityAger",
    "StatusReporter",
    "MetricsExporter",
    "DecisionRecorder",
)


@pytest.fixture(scope="module")
def failing_agent(lab: Lab) -> Iterator[Agent]:
    """An agent that makes an actor fail when the test asks for it."""
    made = Agent(lab, {"log__redirects": "all"})  # or there would be no DecisionRecorder
    made.start(program=("-m", "tests.lab.failing_agent"))
    yield made
    made.kill()
    made.command("detach")


@pytest.mark.parametrize("actor", ACTORS)
def test_the_failure_of_an_actor_costs_no_call_and_changes_nothing(
    lab: Lab, failing_agent: Agent, client: PodProcess, pods: list[PodProcess], actor: str
) -> None:
    lab.write("pods", *map(manifests.pod, pods[:2]))
    lab.write("service", manifests.service(ports=(("dns", 53, "UDP"),)))
    of_service = manifests.policy("of-service", service_name="http-server-v4", redirectQosLimit=7)
    lab.write("policies", manifests.policy("vip"), of_service)
    wait_until(lambda: failing_agent.states() == {"vip": "Active", "of-service": "Active"}, "both are active")
    before = failing_agent.inspect("frontends")
    already = failing_agent.restarts(actor)
    assert already is not None, "the agent lists the actor"
    client.do("load_start", address=VIP, port=53, protocol="UDP", threads=2)
    failing_agent.fail(actor)
    wait_until(lambda: failing_agent.restarts(actor) == already + 1, f"{actor} was restarted")
    lab.write("pods", manifests.pod(pods[0]))
    wait_until(lambda: len(failing_agent.inspect("backends")) == 3, "a change after the failure is installed")
    lab.write("pods", *map(manifests.pod, pods[:2]))
    wait_until(lambda: failing_agent.inspect("frontends") == before, "the same frontends are installed")
    tally = client.do("load_stop")["tally"]
    assert set(tally) == {"pod0", "pod1"}, tally
    wait_until(lambda: failing_agent.fetch("/readyz") == "ok\n", "the agent is ready again")
    failing_agent.wait_states({"vip": "Active", "of-service": "Active"})
