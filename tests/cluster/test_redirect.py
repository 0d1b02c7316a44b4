"""The agent as users install it, on a real node: our users' two policies, and what kubectl says about policies.

The Pods run under a real kubelet and behind a real kube-proxy; `host` is a process of the node itself.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest

from tests.cluster import examples, workers
from tests.cluster.control_plane import Manifest
from tests.cluster.examples import VIP, example
from tests.cluster.install_yaml import NAMESPACE
from tests.cluster.installation import ALLOWED_ADDRESSES, DAEMONSET, Installation
from tests.lab.processes import WorkerProcess, wait_until


def renamed(policy: Manifest, name: str) -> Manifest:
    made = copy.deepcopy(policy)
    made["metadata"] = {"name": name}
    return made


@pytest.fixture(scope="module")
def installation(installation: Installation) -> Iterator[Installation]:
    """Runs three Pods: `local`, which the examples select, `remote` behind the Service, and `client`."""
    node = installation.node
    examples.deploy(node)
    yield installation
    node.kubectl("delete", "pods,lr", "--all", "--grace-period=0", "--force")


@pytest.fixture(scope="module")
def client(installation: Installation) -> Iterator[WorkerProcess]:
    made = workers.in_pod(installation.node, "client")
    yield made
    made.kill()


@pytest.fixture(scope="module")
def host(installation: Installation) -> Iterator[WorkerProcess]:
    made = workers.on_host(installation.node)
    yield made
    made.kill()


@pytest.fixture(autouse=True)
def no_policies_left(installation: Installation) -> Iterator[None]:
    yield
    installation.node.kubectl("delete", "lr", "--all")
    wait_until(lambda: not installation.states(), "the agent has no policies left", 30)


@pytest.fixture
def frontends(installation: Installation) -> list[tuple[str, int]]:
    return examples.frontends(installation.node)


def test_both_examples_redirect_requests_of_a_pod_and_of_the_host(
    installation: Installation, client: WorkerProcess, host: WorkerProcess, frontends: list[tuple[str, int]]
) -> None:
    service = frontends[3]
    assert client.do("tcp", address=service[0], port=service[1])["who"] == "remote"
    examples.apply(installation)
    for caller in (client, host):
        for address, port in frontends:
            assert caller.do("tcp", address=address, port=port) == {"who": "local", "peer": [address, port]}
    assert installation.metric('localredirect_redirects_total{policy="test-addr"}') == 4
    assert {row["policy"]: row["redirects"] for row in installation.inspect("policies")} == {
        "test-addr": 4,
        "test-service": 4,
    }


def test_requests_take_the_normal_way_while_the_backend_is_not_ready(
    installation: Installation, client: WorkerProcess, frontends: list[tuple[str, int]]
) -> None:
    examples.apply(installation)
    address, port = frontends[3]
    workers.set_ready(installation.node, "local", ready=False)
    installation.wait_state("test-service", "NoBackend")
    assert client.do("tcp", address=address, port=port)["who"] == "remote"
    workers.set_ready(installation.node, "local", ready=True)
    installation.wait_state("test-service", "Active")
    assert client.do("tcp", address=address, port=port)["who"] == "local"


def test_the_backend_itself_reaches_the_service_the_normal_way(
    installation: Installation, frontends: list[tuple[str, int]]
) -> None:
    examples.apply(installation)
    backend = workers.in_pod(installation.node, "local")
    try:
        assert backend.do("tcp", address=frontends[3][0], port=80)["who"] == "remote"
    finally:
        backend.kill()
    assert installation.metric('localredirect_passes_total{policy="test-service",reason="from_backend"}') == 1


def cell(installation: Installation, name: str, column: str) -> str:
    """A cell of `kubectl get lr`; "" before the controller has written the status."""
    return next((row[column] for row in installation.policy_table() if row["NAME"] == name), "")


def test_kubectl_shows_accepted_policies(installation: Installation) -> None:
    examples.apply(installation)
    for name in examples.NAMES.values():
        wait_until(lambda name=name: cell(installation, name, "NODES") == "1/1", "kubectl shows it", 30)  # type: ignore[misc]
        assert cell(installation, name, "ACCEPTED") == "True"
    rows = installation.policy_table()
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
def test_kubectl_says_why_a_policy_is_not_in_force(installation: Installation, why: str) -> None:
    policy, state, words = REFUSED[why]
    examples.apply(installation)
    installation.node.apply(policy)
    installation.wait_state("younger", state)
    wait_until(lambda: cell(installation, "younger", "ACCEPTED") == "False", "kubectl shows it", 30)
    described = installation.node.kubectl("describe", "lr", "younger").stdout
    for word in (f"Reason:  {state}", *words):
        assert " ".join(word.split()) in " ".join(described.split())


def test_the_loser_of_a_conflict_takes_over_when_the_winner_goes(installation: Installation) -> None:
    examples.apply(installation)
    installation.node.apply(renamed(example("service-frontend"), "younger"))
    installation.wait_state("younger", "Conflict")
    installation.node.kubectl("delete", "lr", "test-service")
    installation.wait_state("younger", "Active")
    wait_until(lambda: cell(installation, "younger", "ACCEPTED") == "True", "kubectl shows it", 30)


def test_kubectl_shows_on_how_many_nodes_a_selector_works(installation: Installation) -> None:
    selector = {"nodeLabelSelector": {"matchLabels": {"zone": "here"}}}
    installation.node.apply(example("service-frontend", config=selector))
    installation.wait_state("test-service", "NodeNotSelected")
    wait_until(lambda: cell(installation, "test-service", "NODES") == "0/0", "no node is selected", 30)
    installation.node.kubectl("label", "node", installation.node.node_name, "zone=here")
    try:
        installation.wait_state("test-service", "Active")
        wait_until(lambda: cell(installation, "test-service", "NODES") == "1/1", "the node is selected", 30)
    finally:
        installation.node.kubectl("label", "node", installation.node.node_name, "zone-")


def test_a_policy_for_the_api_server_cuts_no_agent_off_and_says_so(
    installation: Installation, client: WorkerProcess
) -> None:
    """The policy redirects the API server's Service to a Pod that is no API server."""
    policy = renamed(example("service-frontend"), "api-server")
    frontend = policy["spec"]["frontend"]["serviceMatcher"]
    frontend |= {"serviceName": "kubernetes", "namespace": "default", "toPorts": [{"port": 443, "protocol": "TCP"}]}
    policy["spec"]["backend"] |= {"namespace": "default", "toPorts": [{"port": 80, "protocol": "TCP"}]}
    address = installation.node.kubectl("get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}").stdout
    installation.node.apply([policy])
    installation.wait_state("api-server", "Active")
    assert client.do("tcp", address=address, port=443)["who"] == "local"
    (message,) = [each["message"] for each in installation.status()["policies"] if each["name"] == "api-server"]
    assert "API server" in message
    installation.node.kubectl("rollout", "restart", f"daemonset/{DAEMONSET}", "-n", NAMESPACE)
    installation.node.kubectl("rollout", "status", f"daemonset/{DAEMONSET}", "-n", NAMESPACE, "--timeout=90s")
    # The new agent reaches the API server while the policy is in force.
    installation.wait_state("api-server", "Active")
    assert client.do("tcp", address=address, port=443)["who"] == "local"
