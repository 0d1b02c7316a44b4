"""The agent as users install it, on a real node: both users' policies, and what kubectl says of policies.

Pods are real, behind a real kubelet and kube-proxy; the host is a process of the node.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest

from tests.cluster import examples, workers
from tests.cluster.control_plane import Manifest
from tests.cluster.examples import VIP, example
from tests.cluster.installation import ALLOWED_ADDRESSES, DAEMONSET, NAMESPACE, Installation
from tests.lab.lab import WorkerProcess, wait_until


def renamed(policy: Manifest, name: str) -> Manifest:
    made = copy.deepcopy(policy)
    made["metadata"] = {"name": name}
    return made


@pytest.fixture(scope="module")
def world(installation: Installation) -> Iterator[Installation]:
    """With Pods: `local`, which the examples' selector means, `remote` behind the Service, and a client."""
    node = installation.node
    examples.deploy(node)
    yield installation
    node.kubectl("delete", "pods,lr", "--all", "--grace-period=0", "--force")


@pytest.fixture(scope="module")
def client(world: Installation) -> Iterator[WorkerProcess]:
    made = workers.in_pod(world.node, "client")
    yield made
    made.kill()


@pytest.fixture(scope="module")
def host(world: Installation) -> Iterator[WorkerProcess]:
    made = workers.on_host(world.node)
    yield made
    made.kill()


@pytest.fixture(autouse=True)
def no_policies_left(world: Installation) -> Iterator[None]:
    yield
    world.node.kubectl("delete", "lr", "--all")
    wait_until(lambda: not world.states(), "the agent has heard of it", 30)


@pytest.fixture
def frontends(world: Installation) -> list[tuple[str, int]]:
    return examples.frontends(world.node)


def apply_examples(world: Installation) -> None:
    world.node.apply([example("address-frontend"), example("service-frontend")])
    for name in ("test-addr", "test-service"):
        world.wait_state(name, "Active")


def test_both_examples_redirect_requests_of_a_pod_and_of_the_host(
    world: Installation, client: WorkerProcess, host: WorkerProcess, frontends: list[tuple[str, int]]
) -> None:
    service = frontends[3]
    assert client.do("tcp", address=service[0], port=service[1])["who"] == "remote"
    apply_examples(world)
    for caller in (client, host):
        for address, port in frontends:
            assert caller.do("tcp", address=address, port=port) == {"who": "local", "peer": [address, port]}
    assert world.metric('localredirect_redirects_total{policy="test-addr"}') == 4
    assert {row["policy"]: row["redirects"] for row in world.inspect("policies")} == {
        "test-addr": 4,
        "test-service": 4,
    }


def test_a_pod_that_is_not_ready_sends_requests_the_normal_way_and_back(
    world: Installation, client: WorkerProcess, frontends: list[tuple[str, int]]
) -> None:
    apply_examples(world)
    address, port = frontends[3]
    workers.set_ready(world.node, "local", ready=False)
    world.wait_state("test-service", "NoBackend")
    assert client.do("tcp", address=address, port=port)["who"] == "remote"
    workers.set_ready(world.node, "local", ready=True)
    world.wait_state("test-service", "Active")
    assert client.do("tcp", address=address, port=port)["who"] == "local"


def test_the_backend_itself_reaches_the_service_the_normal_way(
    world: Installation, frontends: list[tuple[str, int]]
) -> None:
    apply_examples(world)
    backend = workers.in_pod(world.node, "local")
    try:
        assert backend.do("tcp", address=frontends[3][0], port=80)["who"] == "remote"
    finally:
        backend.kill()
    assert world.metric('localredirect_passes_total{policy="test-service",reason="from_backend"}') == 1


def cell(world: Installation, name: str, column: str) -> str:
    """Of `kubectl get lr`; empty before the controller has written."""
    return next((row[column] for row in world.policy_table() if row["NAME"] == name), "")


def test_kubectl_shows_accepted_policies(world: Installation) -> None:
    apply_examples(world)
    for name in ("test-service", "test-addr"):
        wait_until(lambda name=name: cell(world, name, "NODES") == "1/1", "it is said", 30)  # type: ignore[misc]
        assert cell(world, name, "ACCEPTED") == "True"
    rows = world.policy_table()
    assert [list(row) for row in rows] == [["NAME", "FRONTEND", "NODES", "ACCEPTED", "AGE"]] * 2
    shown = {row["NAME"]: (row["FRONTEND"], row["NODES"]) for row in rows}
    assert shown == {"test-addr": (VIP, "1/1"), "test-service": ("default/http-server-v4", "1/1")}


def outside() -> Manifest:
    policy = renamed(example("address-frontend"), "younger")
    policy["spec"]["frontend"]["addressMatcher"]["ip"] = "192.0.2.1"
    return policy


REFUSED: dict[str, tuple[Manifest, str, list[str]]] = {
    "it matches another's Service": (
        renamed(example("service-frontend"), "younger"),
        "Conflict",
        ["Service default/http-server-v4", "test-service"],
    ),
    "it claims another's address": (renamed(example("address-frontend"), "younger"), "Conflict", [VIP, "test-addr"]),
    "its address is not allowed": (outside(), "Invalid", ["192.0.2.1", "redirect.address_cidrs", ALLOWED_ADDRESSES]),
    "it is disabled": (
        renamed(example("service-frontend", enabled=False), "younger"),
        "Disabled",
        ["spec.enabled is false"],
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_kubectl_says_why_a_policy_is_not_in_force(world: Installation, why: str) -> None:
    policy, state, words = REFUSED[why]
    apply_examples(world)
    world.node.apply(policy)
    world.wait_state("younger", state)
    wait_until(lambda: cell(world, "younger", "ACCEPTED") == "False", "it is said", 30)
    described = world.node.kubectl("describe", "lr", "younger").stdout
    for word in (f"Reason:  {state}", *words):
        assert " ".join(word.split()) in " ".join(described.split())


def test_the_loser_of_a_conflict_takes_over_when_the_winner_goes(world: Installation) -> None:
    apply_examples(world)
    world.node.apply(renamed(example("service-frontend"), "younger"))
    world.wait_state("younger", "Conflict")
    world.node.kubectl("delete", "lr", "test-service")
    world.wait_state("younger", "Active")
    wait_until(lambda: cell(world, "younger", "ACCEPTED") == "True", "it is said", 30)


def test_kubectl_shows_on_how_many_nodes_a_selector_works(world: Installation) -> None:
    selector = {"nodeLabelSelector": {"matchLabels": {"zone": "here"}}}
    world.node.apply(example("service-frontend", config=selector))
    world.wait_state("test-service", "NodeNotSelected")
    wait_until(lambda: cell(world, "test-service", "NODES") == "0/0", "no node is selected", 30)
    world.node.kubectl("label", "node", world.node.node_name, "zone=here")
    try:
        world.wait_state("test-service", "Active")
        wait_until(lambda: cell(world, "test-service", "NODES") == "1/1", "the node is selected", 30)
    finally:
        world.node.kubectl("label", "node", world.node.node_name, "zone-")


def test_a_policy_for_the_api_server_cuts_no_agent_off_and_says_so(world: Installation, client: WorkerProcess) -> None:
    """Behind its Service stands a Pod here that is no API server at all."""
    policy = renamed(example("service-frontend"), "api-server")
    frontend = policy["spec"]["frontend"]["serviceMatcher"]
    frontend |= {"serviceName": "kubernetes", "namespace": "default", "toPorts": [{"port": 443, "protocol": "TCP"}]}
    policy["spec"]["backend"] |= {"namespace": "default", "toPorts": [{"port": 80, "protocol": "TCP"}]}
    address = world.node.kubectl("get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}").stdout
    world.node.apply([policy])
    world.wait_state("api-server", "Active")
    assert client.do("tcp", address=address, port=443)["who"] == "local"
    (message,) = [each["message"] for each in world.status()["policies"] if each["name"] == "api-server"]
    assert "API server" in message
    world.node.kubectl("rollout", "restart", f"daemonset/{DAEMONSET}", "-n", NAMESPACE)
    world.node.kubectl("rollout", "status", f"daemonset/{DAEMONSET}", "-n", NAMESPACE, "--timeout=90s")
    world.wait_state("api-server", "Active")  # told by an agent that connected while the policy was in force
    assert client.do("tcp", address=address, port=443)["who"] == "local"
