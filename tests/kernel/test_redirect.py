"""Connections land on the local Pod, and programs see the frontend (P1, P2, P15)."""

from __future__ import annotations

import pytest

from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.lab import CLUSTER_IP, CLUSTER_IP6, REMOTE, VIP, Lab, PodProcess
from tests.lab.processes import wait_until


@pytest.fixture
def redirected(lab: Lab, agent: Agent, pods: list[PodProcess]) -> None:
    """One backend behind a virtual IP and behind a Service with both families."""
    lab.write("pod", manifests.pod(pods[0]))
    lab.write("service", manifests.service(ports=(("dns", 53, "UDP"), ("web", 80, "TCP"))))
    ports = ((53, "UDP"), (80, "TCP"))
    vip = manifests.policy("vip", ports=ports)
    of_service = manifests.policy("of-service", service_name="http-server-v4", ports=ports)
    for each in (vip, of_service):
        backend = each["spec"]["backend"]["toPorts"]
        backend[0]["port"], backend[1]["port"] = 53, 80
    lab.write("policies", vip, of_service)
    wait_until(lambda: list(agent.states().values()) == ["Active", "Active"], "both policies are active")


@pytest.mark.usefixtures("redirected")
@pytest.mark.parametrize("address", [VIP, CLUSTER_IP, CLUSTER_IP6])
def test_tcp_lands_on_the_local_pod_and_getpeername_shows_the_frontend(client: PodProcess, address: str) -> None:
    assert client.do("tcp", address=address, port=80) == {"who": "pod0", "peer": [address, 80]}


@pytest.mark.usefixtures("redirected")
@pytest.mark.parametrize("connected", [True, False], ids=["connected", "unconnected"])
@pytest.mark.parametrize("address", [VIP, CLUSTER_IP, CLUSTER_IP6])
def test_udp_replies_come_from_the_frontend(client: PodProcess, address: str, connected: bool) -> None:
    answer = client.do("udp", address=address, port=53, connected=connected)
    assert answer == {"who": "pod0", "source": [address, 53]}


@pytest.mark.usefixtures("redirected")
def test_ipv6_sockets_reach_ipv4_frontends_through_mapped_addresses(client: PodProcess) -> None:
    mapped = f"::ffff:{VIP}"
    assert client.do("tcp", address=VIP, port=80, mapped=True) == {"who": "pod0", "peer": [mapped, 80]}
    assert client.do("udp", address=VIP, port=53, mapped=True) == {"who": "pod0", "source": [mapped, 53]}
    assert client.do("udp", address=VIP, port=53, mapped=True, connected=True)["source"] == [mapped, 53]


@pytest.mark.usefixtures("redirected")
def test_one_socket_asks_three_name_servers_and_each_reply_has_the_right_source(client: PodProcess) -> None:
    targets = [(VIP, 53), (CLUSTER_IP, 53), ("169.254.0.91", 53)]
    answers = client.do("udp_many", targets=targets)["answers"]
    # Two frontends share a backend on this socket. A reply may show either of them, but never the backend.
    assert [who for who, _, _ in answers] == ["pod0", "pod0", REMOTE]
    assert {source for who, source, _ in answers if who == "pod0"} <= {VIP, CLUSTER_IP}
    assert [source for who, source, _ in answers if who == REMOTE] == ["169.254.0.91"]


@pytest.mark.usefixtures("redirected")
def test_another_port_of_the_address_takes_the_normal_way(client: PodProcess) -> None:
    assert client.do("tcp", address=VIP, port=8080)["who"] == REMOTE


@pytest.mark.parametrize(
    "change",
    [
        {"ready": False},
        {"terminating": True},
        {"app": "other"},
        {"node": "elsewhere"},
    ],
    ids=["not ready", "terminating", "relabelled", "on another node"],
)
@pytest.mark.usefixtures("redirected")
def test_without_a_usable_backend_clients_take_the_normal_way(
    lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess], change: dict[str, object]
) -> None:
    lab.write("pod", manifests.pod(pods[0], **change))  # type: ignore[arg-type]
    wait_until(lambda: agent.inspect("frontends") == [], "the frontends are gone")
    agent.wait_states({"vip": "NoBackend", "of-service": "NoBackend"})
    assert client.do("udp", address=VIP, port=53)["who"] == REMOTE
    lab.write("pod", manifests.pod(pods[0]))
    wait_until(lambda: len(agent.inspect("frontends")) == 6, "the frontends are back")
    assert client.do("udp", address=VIP, port=53)["who"] == "pod0"


@pytest.mark.usefixtures("redirected")
def test_a_policy_that_becomes_invalid_is_removed(lab: Lab, agent: Agent, client: PodProcess) -> None:
    bad = manifests.policy("vip")
    bad["spec"]["frontend"]["addressMatcher"]["toPorts"][0]["port"] = 70000
    lab.write("policies", bad)
    wait_until(lambda: agent.states() == {"vip": "Invalid"}, "the policy is invalid")
    assert "toPorts[0].port" in agent.message("vip")
    wait_until(lambda: agent.inspect("frontends") == [], "nothing of it is installed")
    assert client.do("udp", address=VIP, port=53)["who"] == REMOTE


@pytest.mark.usefixtures("redirected")
def test_a_file_that_does_not_parse_keeps_its_last_good_content(lab: Lab, agent: Agent, client: PodProcess) -> None:
    (lab.manifests / "policies.yaml").write_text("spec: [unclosed")
    wait_until(lambda: "policies.yaml" in agent.log.read_text(), "the fault is in the log")
    assert client.do("udp", address=VIP, port=53)["who"] == "pod0"
    assert "Traceback" not in agent.log.read_text()


def test_new_calls_are_spread_evenly(lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess]) -> None:
    lab.write("pods", *map(manifests.pod, pods))
    lab.write("policies", manifests.policy("vip"))
    wait_until(lambda: len(agent.inspect("backends")) == 3, "three backends")
    tally = client.do("burst", targets=[(VIP, 53)], calls=900, threads=2)["tally"]
    assert sorted(tally) == ["pod0", "pod1", "pod2"]
    assert min(tally.values()) > 220  # 5.5 standard deviations below 300
