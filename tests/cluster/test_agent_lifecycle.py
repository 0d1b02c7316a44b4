"""The agent or the API server goes away and comes back: redirects stay as they are, and catch up afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.cluster import workers
from tests.cluster.install_yaml import NAMESPACE
from tests.cluster.installation import DAEMONSET, LEASE_SECONDS, Installation
from tests.cluster.machine import Machine
from tests.lab.manifests import policy
from tests.lab.processes import WorkerProcess, wait_until

VIP = "169.254.1.1"
STICKY_VIP = "169.254.1.2"
OUTAGE_SECONDS = 30.0
LOST_IN_A_CRASH = 20
"""The most calls that one thread may lose in a row before the kernel tells the agent that a container has ended. That
takes some ten milliseconds, in which each call is refused at once."""


@pytest.fixture(scope="module")
def installation(installation: Installation) -> Iterator[Installation]:
    """Runs two policies, one of them with affinity, three backends and a client."""
    node = installation.node
    backends = [workers.server(f"backend-{i}", labels={"app": "backend"}, udp=(53,), tcp=(80,)) for i in range(3)]
    node.apply([*backends, workers.idle("client")])
    for name in ("backend-0", "backend-1", "backend-2", "client"):
        node.wait_pod_ready(name)
    node.apply(
        [
            policy("plain", ip=VIP, ports=((80, "TCP"),), backend_port=80, app="backend"),
            policy("sticky", ip=STICKY_VIP, app="backend", sessionAffinity="ClientIP"),
        ]
    )
    for name in ("plain", "sticky"):
        installation.wait_state(name, "Active")
    yield installation
    node.kubectl("delete", "lr", "plain", "sticky")
    node.kubectl("delete", "pods", "--all", "--grace-period=0", "--force")


@pytest.fixture(scope="module")
def client(installation: Installation) -> Iterator[WorkerProcess]:
    made = workers.beside(installation.node, "client")
    yield made
    made.kill()


@pytest.fixture(scope="module")
def load(installation: Installation) -> Iterator[WorkerProcess]:
    made = workers.beside(installation.node, "client")
    yield made
    made.kill()


def backends(tally: dict[str, int]) -> set[str]:
    return {name for name in tally if tally[name]}


def sticky(client: WorkerProcess) -> str:
    """The one backend that answers the client."""
    answers = {client.do("udp", address=STICKY_VIP, port=53)["who"] for _ in range(6)}
    assert len(answers) == 1
    return str(answers.pop())


def test_a_rollout_of_the_agent_fails_no_call_and_keeps_affinity(
    installation: Installation, client: WorkerProcess, load: WorkerProcess
) -> None:
    before = sticky(client)
    load.do("load_start", address=VIP, port=80, protocol="TCP", threads=2)
    former = installation.agent_pod()["metadata"]["name"]
    installation.node.kubectl("rollout", "restart", f"daemonset/{DAEMONSET}", "-n", NAMESPACE)
    installation.wait_ready()
    tally = load.do("load_stop")["tally"]
    assert installation.agent_pod()["metadata"]["name"] != former
    assert backends(tally) == {"backend-0", "backend-1", "backend-2"}
    assert sticky(client) == before


def test_calls_take_the_normal_way_when_the_agent_stays_away_longer_than_its_lease(
    installation: Installation, client: WorkerProcess
) -> None:
    """Nothing listens on the virtual IP itself, so a call that takes the normal way fails."""
    node = installation.node
    nowhere = {"nodeSelector": {"no-such-node": "true"}}
    patch = {"spec": {"template": {"spec": nowhere}}}
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{DAEMONSET}"
    node.api.patch(path, patch)
    installation.wait_gone(DAEMONSET)
    began = time.monotonic()
    assert client.do("udp", address=STICKY_VIP, port=53)["who"].startswith("backend")
    wait_until(lambda: "error" in client.do("udp", address=STICKY_VIP, port=53), "redirects have ended", 60)
    assert time.monotonic() - began > LEASE_SECONDS / 2
    node.api.patch(path, {"spec": {"template": {"spec": {"nodeSelector": None}}}})
    wait_until(
        lambda: client.do("udp", address=STICKY_VIP, port=53).get("who", "").startswith("backend"), "it is back", 60
    )
    installation.wait_ready()
    assert installation.metric('localredirect_passes_total{policy="sticky",reason="lease"}') > 0


def test_an_outage_of_the_api_server_changes_nothing_and_the_agent_catches_up_after_it(
    installation: Installation, load: WorkerProcess
) -> None:
    """During the outage a backend Pod is deleted in the only way that is left: from etcd. The kubelet ends its
    processes when it learns of that, after the outage. If the kubelet is faster than the agent, the agent sees this as
    a crash: the kernel tells it that the container has ended, and the calls of some milliseconds are lost."""
    node = installation.node
    load.do("load_start", address=VIP, port=80, protocol="TCP", threads=1)
    node.plane.stop_apiserver()
    forget_pod(node, "backend-2")
    before = load.do("load_tally")["tally"]
    time.sleep(OUTAGE_SECONDS)  # the outage itself
    during = load.do("load_tally")["tally"]
    assert backends(during) == {"backend-0", "backend-1", "backend-2"}
    assert all(during[name] > before[name] for name in during)
    assert backends(load.do("load_tally")["tally"]) == {"backend-0", "backend-1", "backend-2"}
    node.plane.start_apiserver()
    node.plane.restart_controllers()
    gone = node.api.raw("GET", "/api/v1/namespaces/default/pods/backend-2")[0]
    assert gone == 404
    wait_until(lambda: "backend-2" not in installed_backends(installation), "its rows are removed", 30)
    tally = load.do("load_stop")["tally"]
    lost = {name: count for name, count in tally.items() if not name.startswith("backend-")}
    assert sum(lost.values()) <= LOST_IN_A_CRASH, lost


def installed_backends(installation: Installation) -> list[str]:
    """The Pods whose addresses are installed as backends. An address that no Pod has is that of backend-2, the only Pod
    that is deleted."""
    pods = installation.node.api.get("/api/v1/namespaces/default/pods")["items"]
    names = {pod["status"].get("podIP"): pod["metadata"]["name"] for pod in pods}
    return [names.get(row["address"], "backend-2") for row in installation.inspect("backends")]


def forget_pod(node: Machine, name: str) -> None:
    node.run("etcdctl", f"--endpoints=http://127.0.0.1:{node.plane.etcd_port}", "del", f"/registry/pods/default/{name}")
