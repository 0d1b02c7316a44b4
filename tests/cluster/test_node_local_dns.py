"""Node-local DNS, the main use: the documented example on a real node, and how many lookups each fault costs.

Lookups are sent at a constant rate, whatever the answers are, and those that go unanswered are counted and printed.
None may be lost when the cache ends in good order, or when only the agent or the API server fails.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator

import pytest

from tests.cluster import dns, faults, load
from tests.cluster.control_plane import Manifest
from tests.cluster.install_yaml import NAMESPACE as AGENT_NAMESPACE
from tests.cluster.installation import DAEMONSET, Installation
from tests.cluster.machine import Machine
from tests.cluster.node_view import is_ready
from tests.cluster.overflows import Overflows
from tests.cluster.places import CLUSTER_DNS
from tests.lab.processes import wait_until

NAMESPACE = "kube-system"
OUTAGE_SECONDS = 5.0
ReportLoss = Callable[[str, load.Result, int], None]


@pytest.fixture(scope="module")
def installation(installation: Installation) -> Iterator[Installation]:
    """Runs the cluster's DNS and the example."""
    node = installation.node
    with dns.upstream(node):
        dns.deploy(node)
        dns.apply_example(node)
        installation.wait_state(dns.POLICY, "Active")
        yield installation
        node.kubectl("delete", "-f", str(dns.EXAMPLE))
        node.kubectl("delete", "-n", NAMESPACE, "deployment/coredns", "service/kube-dns", "configmap/coredns")
        node.kubectl("delete", "pod", "resolver", "--force", "--grace-period=0")


@pytest.fixture
def node(installation: Installation) -> Machine:
    return installation.node


@pytest.fixture
def report_loss(capsys: pytest.CaptureFixture[str]) -> ReportLoss:
    """Prints what was lost, also when the test passes."""

    def report(what: str, result: load.Result, dropped: int) -> None:
        with capsys.disabled():
            print(f"\n{what}: {result}; {dropped} dropped by full queues")

    return report


def redirects(installation: Installation) -> float:
    return installation.metric(f'localredirect_redirects_total{{policy="{dns.POLICY}"}}')


def cache_pods(node: Machine) -> list[Manifest]:
    """The Pods of the cache that are not being deleted."""
    pods = node.api.get(f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app%3D{dns.CACHE}")["items"]
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def name_of(pod: Manifest) -> str:
    return str(pod["metadata"]["name"])


def cache_pod(node: Machine) -> str:
    """The name of the only Pod of the cache."""
    (pod,) = cache_pods(node)
    return name_of(pod)


@pytest.mark.parametrize("libc", dns.LIBCS)
@pytest.mark.parametrize("name", [dns.NAME, "any.upstream.test"])
def test_lookups_of_both_c_libraries_land_on_the_local_cache(
    installation: Installation, node: Machine, libc: str, name: str
) -> None:
    before = redirects(installation)
    output = json.loads(node.exec("resolver", f"lookup-{libc}", name, "5").stdout)
    assert (output["calls"], output["failed"]) == (5, 0)
    assert redirects(installation) - before >= 5


@pytest.mark.parametrize("protocol", ["udp", "udp-connected", "tcp"])
def test_every_lookup_is_redirected_over_udp_and_tcp(installation: Installation, node: Machine, protocol: str) -> None:
    before = redirects(installation)
    lookup = ("lookup-musl", "--raw", CLUSTER_DNS, dns.NAME, "--proto", protocol, "--count", "50")
    output = json.loads(node.exec("resolver", *lookup).stdout)
    assert (output["queries"], output["answers"]) == (50, 50)
    assert redirects(installation) - before == 50


def test_the_cache_reaches_the_clusters_dns_through_the_same_service(installation: Installation, node: Machine) -> None:
    """It asks for a new name, which is not in the cache. CoreDNS keeps its connections upstream, so not every lookup
    makes a call: one is enough."""
    lookup = ("lookup-musl", "--raw", CLUSTER_DNS, f"x{os.getpid()}.upstream.test", "--proto", "udp", "--count", "1")
    assert json.loads(node.exec("resolver", *lookup).stdout)["answers"] == 1
    assert installation.metric(f'localredirect_passes_total{{policy="{dns.POLICY}",reason="from_backend"}}') >= 1


# --- faults, under a constant load that no answer delays


def deleted(installation: Installation, pod: str) -> None:
    faults.delete(installation.node, pod, NAMESPACE)


def evicted(installation: Installation, pod: str) -> None:
    faults.evict(installation.node, pod, NAMESPACE)


def rolled_out(installation: Installation, pod: str) -> None:
    node = installation.node
    node.kubectl("rollout", "restart", f"daemonset/{dns.CACHE}", "-n", NAMESPACE)
    node.kubectl("rollout", "status", f"daemonset/{dns.CACHE}", "-n", NAMESPACE, "--timeout=90s")
    wait_until(lambda: pod not in map(name_of, cache_pods(node)), "the former Pod is being deleted", 60)


def not_ready(installation: Installation, pod: str) -> None:
    with faults.probe_blocked(installation.node.process_of(pod, "coredns", namespace=NAMESPACE)):
        installation.wait_state(dns.POLICY, "NoBackend")


def agent_rolled_out(installation: Installation, _pod: str) -> None:
    installation.node.kubectl("rollout", "restart", f"daemonset/{DAEMONSET}", "-n", AGENT_NAMESPACE)
    installation.wait_ready()


def agent_killed(installation: Installation, _pod: str) -> None:
    agent = installation.agent_pod()
    faults.kill(installation.agent_process())
    wait_until(lambda: restarts(installation) > restarts_of(agent), "the kubelet has started it again", 60)
    installation.wait_ready()


def restarts(installation: Installation) -> int:
    return restarts_of(installation.agent_pod())


def restarts_of(pod: Manifest) -> int:
    return sum(each["restartCount"] for each in pod["status"]["containerStatuses"])


def api_server_away(installation: Installation, _pod: str) -> None:
    installation.node.plane.stop_apiserver()
    time.sleep(OUTAGE_SECONDS)
    installation.node.plane.start_apiserver()
    installation.node.plane.restart_controllers()


WITHOUT_LOSS = (deleted, evicted, rolled_out, not_ready, agent_rolled_out, agent_killed, api_server_away)
"""The cache goes on serving or ends in good order, or only the agent or the API server fails."""


def load_during(installation: Installation, happen: Callable[[], None]) -> tuple[load.Result, int]:
    """Sends 1,000 lookups a second while something happens, and until the cache is in use again. Then the quiet sockets
    ask, too. Also returns how many questions the servers' full queues dropped: these are lost because this machine is
    too busy."""
    node = installation.node
    with Overflows(node, NAMESPACE) as overflows:
        with load.Load(node, "resolver", kept=5, quiet=5) as running:
            happen()
            wait_until(lambda: any(map(is_ready, cache_pods(node))), "a cache is Ready", 90)
            installation.wait_state(dns.POLICY, "Active")
            running.ask_quiet()
            time.sleep(2)  # so that the quiet ones ask some times
        return running.result, overflows.count()


@pytest.mark.parametrize("fault", WITHOUT_LOSS, ids=lambda fault: fault.__name__)
def test_no_lookup_is_lost_unless_the_cache_itself_breaks(
    installation: Installation, node: Machine, fault: Callable[[Installation, str], None], report_loss: ReportLoss
) -> None:
    pod = cache_pod(node)
    result, dropped = load_during(installation, lambda: fault(installation, pod))
    report_loss(fault.__name__, result, dropped)
    assert result.lookups.unanswered <= dropped
    assert (result.kept.silent, result.quiet.silent) == (0, 0)


def test_a_crash_costs_the_lookups_of_a_moment(
    installation: Installation, node: Machine, report_loss: ReportLoss
) -> None:
    """The kernel tells the agent that the container has ended. Without that, all lookups of a second would be lost:
    1,000."""
    pod = cache_pod(node)
    crashed = node.process_of(pod, "coredns", namespace=NAMESPACE)

    def crash() -> None:
        faults.kill(crashed)
        installation.wait_state(dns.POLICY, "NoBackend")

    result, dropped = load_during(installation, crash)
    report_loss("killed (-9)", result, dropped)
    assert result.lookups.unanswered - dropped <= load.RATE / 4
    assert (result.kept.silent, result.quiet.silent) == (0, 0)


def test_a_cache_that_hangs_is_taken_out_of_use(
    installation: Installation, node: Machine, report_loss: ReportLoss
) -> None:
    """The example's health check notices within 1.5 s that it hangs. The readiness probe takes about as long; if it is
    first, the policy says that the cache is not Ready. The cache hangs for another 3 s, in which the cluster's DNS
    answers."""
    pod = cache_pod(node)

    def hang() -> None:
        with faults.hanging([node.process_of(pod, "coredns", namespace=NAMESPACE)]):
            installation.wait_state(dns.POLICY, "NoBackend")
            time.sleep(3)

    result, dropped = load_during(installation, hang)
    report_loss("hanging", result, dropped)  # mostly dropped by the hanging server's queue
    assert result.lookups.unanswered <= load.RATE * 2
    assert (result.kept.silent, result.quiet.silent) == (0, 0)
