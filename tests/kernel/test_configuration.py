"""The kernel gets only what the configuration allows (docs/configuration.md: `datapath`, `redirect`)."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.lab import CLUSTER_IP, CLUSTER_IP6, REMOTE, VIP, Lab, PodProcess
from tests.lab.processes import wait_until


@pytest.fixture
def fresh_agent(lab: Lab, pods: list[PodProcess], request: pytest.FixtureRequest) -> Iterator[Agent]:
    """Started for one test, and configured by its parameter if it has one. There are a Pod and two policies."""
    lab.write("pod", manifests.pod(pods[0]))
    lab.write("service", manifests.service(ports=(("dns", 53, "UDP"),)))
    lab.write("policies", manifests.policy("vip"), manifests.policy("of-service", service_name="http-server-v4"))
    with lab.running_agent(**getattr(request, "param", {})) as made:
        yield made


def addresses(agent: Agent) -> set[str]:
    return {row["address"] for row in agent.inspect("frontends")}


@pytest.mark.parametrize("fresh_agent", [{"datapath__ipv6": False}], indirect=True, ids=[""])
def test_without_ipv6_there_is_no_ipv6_frontend_and_mapped_sockets_still_reach_ipv4_frontends(
    fresh_agent: Agent, client: PodProcess
) -> None:
    assert addresses(fresh_agent) == {VIP, CLUSTER_IP}
    assert client.do("udp", address=CLUSTER_IP6, port=53)["who"] == REMOTE
    assert client.do("udp", address=VIP, port=53, mapped=True, connected=True)["who"] == "pod0"
    assert client.do("tcp", address=VIP, port=80)["who"] == REMOTE


@pytest.mark.parametrize("fresh_agent", [{"datapath__ipv4": False}], indirect=True, ids=[""])
def test_without_ipv4_there_is_no_ipv4_frontend(fresh_agent: Agent, client: PodProcess) -> None:
    assert addresses(fresh_agent) == {CLUSTER_IP6}
    fresh_agent.wait_states({"vip": "NoFrontend", "of-service": "Active"})
    assert client.do("udp", address=CLUSTER_IP6, port=53)["who"] == "pod0"
    assert client.do("udp", address=VIP, port=53)["who"] == REMOTE


@pytest.mark.parametrize("fresh_agent", [{"redirect__address_cidrs": ["192.0.2.0/24"]}], indirect=True, ids=[""])
def test_an_address_outside_the_allowed_ones_is_invalid(fresh_agent: Agent, client: PodProcess) -> None:
    fresh_agent.wait_states({"vip": "Invalid", "of-service": "Active"})
    assert "192.0.2.0/24" in fresh_agent.message("vip")
    assert client.do("udp", address=VIP, port=53)["who"] == REMOTE


@pytest.mark.parametrize("fresh_agent", [{"redirect__address_backend_namespaces": ["dns"]}], indirect=True, ids=[""])
def test_an_address_policy_takes_only_pods_of_allowed_namespaces(fresh_agent: Agent) -> None:
    fresh_agent.wait_states({"vip": "NoBackend", "of-service": "Active"})


@pytest.mark.parametrize("fresh_agent", [{"redirect__qos_limit": 3}], indirect=True, ids=[""])
def test_the_agents_limit_holds_for_policies_without_their_own(lab: Lab, fresh_agent: Agent) -> None:
    unlimited = manifests.policy("vip", redirectQosLimit=0)
    lab.write("policies", unlimited, manifests.policy("of-service", service_name="http-server-v4"))
    wait_until(
        lambda: [row["policy"] for row in fresh_agent.inspect("qos")] == ["of-service"], "the limits are installed"
    )
    assert {row["policy"]: row["qos_limit"] for row in fresh_agent.inspect("policies")} == {"vip": 0, "of-service": 3}


def test_counters_survive_a_time_without_backends_and_metrics_show_the_same(
    lab: Lab, fresh_agent: Agent, client: PodProcess, pods: list[PodProcess]
) -> None:
    wait_until(lambda: len(fresh_agent.inspect("frontends")) == 3, "installed")
    for _ in range(4):
        client.do("udp", address=VIP, port=53)
    lab.write("pod", manifests.pod(pods[0], ready=False))
    wait_until(lambda: fresh_agent.inspect("frontends") == [], "no backends")
    assert fresh_agent.metric('localredirect_redirects_total{policy="vip"}') == 4
    lab.write("pod", manifests.pod(pods[0]))
    wait_until(lambda: len(fresh_agent.inspect("frontends")) == 3, "installed again")
    fresh_agent.wait_states({"vip": "Active", "of-service": "Active"})
    client.do("udp", address=VIP, port=53)
    assert {row["policy"]: row["redirects"] for row in fresh_agent.inspect("policies")} == {"vip": 5, "of-service": 0}
    assert fresh_agent.metric('localredirect_redirects_total{policy="vip"}') == 5
    assert fresh_agent.metric('localredirect_policy_state{policy="vip",state="Active"}') == 1
    assert fresh_agent.metric('localredirect_backends{policy="vip"}') == 1
    assert fresh_agent.metric('localredirect_map_entries{map="frontends"}') == 3


def test_a_restarted_agent_keeps_counters_and_affinity(lab: Lab, fresh_agent: Agent, client: PodProcess) -> None:
    lab.write("policies", manifests.policy("vip", sessionAffinity="ClientIP"))
    wait_until(
        lambda: [row["affinity_seconds"] for row in fresh_agent.inspect("frontends")] == [10800], "affinity is on"
    )
    client.do("udp", address=VIP, port=53)
    (held,) = fresh_agent.inspect("affinity")
    counted = fresh_agent.inspect("policies")
    fresh_agent.kill()
    fresh_agent.start()
    (kept,) = fresh_agent.inspect("affinity")
    assert {key: value for key, value in kept.items() if key != "expires_in_seconds"} == {
        key: value for key, value in held.items() if key != "expires_in_seconds"
    }
    assert fresh_agent.inspect("policies") == counted


def test_the_agent_stops_within_five_seconds_of_ctrl_c(fresh_agent: Agent) -> None:
    assert fresh_agent.process
    fresh_agent.process.send_signal(signal.SIGINT)
    assert fresh_agent.process.wait(5) == 0
