"""The closer as users install it: a container beside the agent, which closes sockets to Pods that are gone (P20)."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest

from tests.cluster import examples, workers
from tests.cluster.control_plane import Manifest
from tests.cluster.examples import SERVICE, example
from tests.cluster.install_yaml import NAMESPACE
from tests.cluster.installation import DAEMONSET, Installation
from tests.lab.processes import WorkerProcess, wait_until

POLICY = examples.NAMES["service-frontend"]
DNS_PORT = 53


@pytest.fixture
def pods(installation: Installation) -> Iterator[None]:
    """Two Pods that the policy selects, one after the other, and a client that starts after the closer."""
    node = installation.node
    service: Manifest = copy.deepcopy(SERVICE)
    service["spec"]["ports"] = [{"name": "dns", "port": DNS_PORT, "protocol": "UDP"}]
    node.apply([service, workers.server("first", labels={"app": "http-redirect"}, udp=(DNS_PORT,))])
    node.apply([workers.idle("late-client")])
    for name in ("first", "late-client"):
        node.wait_pod_ready(name)
    yield
    node.kubectl("delete", "lr", "--all")
    node.kubectl("delete", "service", service["metadata"]["name"])
    node.kubectl("delete", "pods", "--all", "--grace-period=0", "--force")


@pytest.mark.usefixtures("pods")
def test_sockets_of_a_pod_and_of_the_host_leave_a_pod_that_is_deleted(installation: Installation) -> None:
    node = installation.node
    policy = example("service-frontend")
    policy["spec"]["frontend"]["serviceMatcher"]["toPorts"] = [{"port": str(DNS_PORT), "protocol": "UDP"}]
    policy["spec"]["backend"]["toPorts"] = [{"port": str(DNS_PORT), "protocol": "UDP"}]
    node.apply([policy])
    installation.wait_state(POLICY, "Active")
    wait_until(lambda: installation.status()["closer"] == {"state": "running", "message": ""}, "the closer runs", 30)
    frontend = node.api.get("/api/v1/namespaces/default/services/http-server-v4")["spec"]["clusterIP"]
    callers = [workers.in_pod(node, "late-client"), workers.on_host(node)]
    try:
        for each in callers:
            assert kept_socket(each, frontend) == "first"
        node.apply([workers.server("second", labels={"app": "http-redirect"}, udp=(DNS_PORT,))])
        node.wait_pod_ready("second")
        node.kubectl("delete", "pod", "first", "--wait=true")
        for each in callers:
            assert each.do("await_error", key="kept") == {"reported": "ECONNABORTED"}
            assert kept_socket(each, frontend) == "second"
    finally:
        for each in callers:
            each.kill()
    line = f'localredirect_stale_sockets_closed_total{{policy="{POLICY}"}}'
    wait_until(lambda: installation.metric(line) == 2, "both are counted", 30)
    log = node.kubectl("logs", "-n", NAMESPACE, f"daemonset/{DAEMONSET}", "-c", "closer").stdout
    assert "which is out of use for" in log


def kept_socket(caller: WorkerProcess, frontend: str) -> str:
    """Opens and connects a UDP socket; who answers on it."""
    caller.do("open", key="kept")
    assert "peer" in caller.do("connect", key="kept", address=frontend, port=DNS_PORT)
    return str(caller.do("ask", key="kept")["who"])
