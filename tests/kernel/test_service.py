"""The agent follows the changes of a Service that is a frontend, and open connections stay (P1, P2, P3, P10)."""

from __future__ import annotations

import pytest

from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.lab import CLUSTER_IP, REMOTE, VIP, Lab, PodProcess
from tests.lab.processes import wait_until

DNS = ("dns", 53, "UDP")
WEB = ("web", 80, "TCP")


@pytest.fixture(autouse=True)
def backend(lab: Lab, pods: list[PodProcess]) -> PodProcess:
    lab.write("pod", manifests.pod(pods[0]))
    return pods[0]


def installed(agent: Agent) -> set[str]:
    return {f"{row['address']}:{row['port']}/{row['protocol']}" for row in agent.inspect("frontends")}


def test_a_service_is_picked_up_when_it_appears_and_followed_until_it_goes(
    lab: Lab, agent: Agent, client: PodProcess
) -> None:
    lab.write("policies", manifests.policy("of-service", service_name="http-server-v4", ports=((53, "UDP"),)))
    wait_until(lambda: agent.states() == {"of-service": "NoFrontend"}, "the Service is missing")
    assert "default/http-server-v4 does not exist" in agent.message("of-service")

    lab.write("service", manifests.service(ports=(DNS,)))
    wait_until(lambda: agent.states() == {"of-service": "Active"}, "the Service is there")
    assert client.do("udp", address=CLUSTER_IP, port=53)["who"] == "pod0"

    lab.write("service", manifests.service(ports=(WEB,)))
    wait_until(lambda: agent.states() == {"of-service": "NoFrontend"}, "its port is another one")
    assert "no port 53/UDP" in agent.message("of-service")
    assert client.do("udp", address=CLUSTER_IP, port=53)["who"] == REMOTE

    headless = manifests.service(ports=(DNS,))
    headless["spec"] |= {"clusterIP": "None", "clusterIPs": ["None"]}
    lab.write("service", headless)
    wait_until(lambda: "headless" in agent.message("of-service"), "it is headless")

    lab.remove("service")
    wait_until(lambda: "does not exist" in agent.message("of-service"), "it is gone")
    assert agent.inspect("frontends") == []


def test_an_entry_that_is_no_port_of_the_service_is_named_and_the_others_work(
    lab: Lab, agent: Agent, client: PodProcess
) -> None:
    lab.write("service", manifests.service(ports=(DNS,)))
    ports = ((53, "UDP"), (54, "UDP"))
    lab.write("policies", manifests.policy("of-service", service_name="http-server-v4", ports=ports))
    wait_until(lambda: agent.states() == {"of-service": "Active"}, "active")
    assert "54/UDP" in agent.message("of-service")
    assert client.do("udp", address=CLUSTER_IP, port=53)["who"] == "pod0"
    assert client.do("udp", address=CLUSTER_IP, port=54)["who"] == REMOTE


def test_without_ports_every_service_port_with_a_partner_is_a_frontend(lab: Lab, agent: Agent) -> None:
    lab.write("service", manifests.service(ports=(("p0", 53, "UDP"), ("lonely", 99, "TCP"), ("p1", 80, "TCP"))))
    policy = manifests.policy("of-service", service_name="http-server-v4", ports=((53, "UDP"), (80, "TCP")))
    del policy["spec"]["frontend"]["serviceMatcher"]["toPorts"]
    lab.write("policies", policy)
    wait_until(lambda: agent.states() == {"of-service": "Active"}, "active")
    assert {each for each in installed(agent) if each.startswith(CLUSTER_IP)} == {
        f"{CLUSTER_IP}:53/UDP",
        f"{CLUSTER_IP}:80/TCP",
    }


def test_an_address_policy_wins_over_a_service_that_has_the_address(lab: Lab, agent: Agent, client: PodProcess) -> None:
    lab.write("service", manifests.service(ports=(DNS,)))
    lab.write("policies", manifests.policy("vip", ip=CLUSTER_IP))
    wait_until(lambda: agent.states() == {"vip": "Active"}, "active")
    assert client.do("udp", address=CLUSTER_IP, port=53) == {"who": "pod0", "source": [CLUSTER_IP, 53]}


def test_a_policy_takes_its_affinity_from_the_service(lab: Lab, agent: Agent) -> None:
    lab.write("service", manifests.service(ports=(DNS,), affinity=True))
    lab.write("policies", manifests.policy("of-service", service_name="http-server-v4"))
    wait_until(lambda: agent.states() == {"of-service": "Active"}, "active")
    assert {row["affinity_seconds"] for row in agent.inspect("frontends")} == {10800}


def test_an_open_connection_outlives_its_policy(lab: Lab, agent: Agent, client: PodProcess) -> None:
    web = manifests.policy("web", ports=((80, "TCP"),), backend_port=80)
    lab.write("policies", web)
    wait_until(lambda: agent.states() == {"web": "Active"}, "active")
    kept = client.do("keep", key="open", address=VIP, port=80)
    assert kept == {"who": "pod0", "peer": [VIP, 80]}
    lab.remove("policies")
    wait_until(lambda: agent.inspect("frontends") == [], "the policy is gone")
    assert client.do("use", key="open") == kept
    assert client.do("tcp", address=VIP, port=80)["who"] == REMOTE


def test_a_change_of_the_backend_port_under_load_fails_no_call(
    lab: Lab, agent: Agent, client: PodProcess, backend: PodProcess
) -> None:
    backend.do("serve", address=backend.address, port=5300, protocol="UDP")
    lab.write("policies", manifests.policy("vip"))
    wait_until(lambda: agent.states() == {"vip": "Active"}, "active")
    client.do("load_start", address=VIP, port=53, protocol="UDP", threads=2)
    for port in (5300, 53) * 5:
        lab.write("policies", manifests.policy("vip", backend_port=port))
        wait_until(
            lambda port=port: [row["port"] for row in agent.inspect("backends")] == [port],  # type: ignore[misc]
            f"the backends' port is {port}",
        )
    assert set(client.do("load_stop")["tally"]) == {"pod0"}


def test_a_policy_that_is_switched_off_is_kept_and_does_nothing(lab: Lab, agent: Agent, client: PodProcess) -> None:
    policy = manifests.policy("vip")
    lab.write("policies", policy)
    wait_until(lambda: agent.states() == {"vip": "Active"}, "active")
    policy["spec"]["enabled"] = False
    lab.write("policies", policy)
    wait_until(lambda: agent.states() == {"vip": "Disabled"}, "disabled")
    wait_until(lambda: agent.inspect("frontends") == [], "nothing is installed")
    assert client.do("udp", address=VIP, port=53)["who"] == REMOTE


def test_a_policy_works_on_the_nodes_that_it_selects(lab: Lab, agent: Agent, client: PodProcess) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node", "labels": {"dns": "local"}}}
    lab.write("policies", manifests.policy("vip", nodeLabelSelector={"matchLabels": {"dns": "local"}}))
    wait_until(lambda: agent.states() == {"vip": "NodeNotSelected"}, "the Node is not known")
    lab.write("node", node)
    wait_until(lambda: agent.states() == {"vip": "Active"}, "the Node's labels match")
    assert client.do("udp", address=VIP, port=53)["who"] == "pod0"
    node["metadata"] = {"name": "node", "labels": {"dns": "central"}}
    lab.write("node", node)
    wait_until(lambda: agent.states() == {"vip": "NodeNotSelected"}, "the labels changed")
    assert client.do("udp", address=VIP, port=53)["who"] == REMOTE
