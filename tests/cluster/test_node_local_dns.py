"""Node-local DNS, the main use: the documented example on a real node, and how many lookups each fault costs.

Lost lookups are counted under constant load, and printed. None may be lost where the kubelet knows of the end before
the cache stops serving: deletion, roll-out, readiness.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import dns
from tests.cluster.installation import Installation
from tests.cluster.node import CLUSTER_DNS, Node
from tests.lab.lab import wait_until

RATES = (("udp", 200), ("udp-connected", 200), ("tcp", 50))
Tell = Callable[[str, list[dns.Result]], None]


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
        node.kubectl("delete", "-n", "kube-system", "deployment/coredns", "service/kube-dns", "configmap/coredns")
        node.kubectl("delete", "pod", "resolver", "--force", "--grace-period=0")


@pytest.fixture
def node(installation: Installation) -> Node:
    return installation.node


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Tell:
    """Prints what was lost in every run, also when the test passes."""

    def say(what: str, results: list[dns.Result]) -> None:
        with capsys.disabled():
            print(f"\n{what}: " + "; ".join(map(str, results)))

    return say


def redirects(installation: Installation) -> float:
    return installation.metric(f'localredirect_redirects_total{{policy="{dns.POLICY}"}}')


def cache_pods(node: Node) -> list[str]:
    """Names of those that are not being deleted."""
    path = f"/api/v1/namespaces/kube-system/pods?labelSelector=app%3D{dns.CACHE}"
    pods = node.api.get(path)["items"]
    return [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def is_ready(node: Node, pod: str) -> bool:
    conditions = node.api.get(f"/api/v1/namespaces/kube-system/pods/{pod}")["status"]["conditions"]
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def process_of(node: Node, pod: str) -> int:
    """The process id of CoreDNS in a Pod; 0 while none runs."""
    for path in node.pod_cgroup(pod, namespace="kube-system").glob("*/cgroup.procs"):
        for process in path.read_text().split():
            if "coredns" in Path(f"/proc/{process}/comm").read_text():
                return int(process)
    return 0


@pytest.mark.parametrize("libc", dns.LIBCS)
@pytest.mark.parametrize("name", [dns.NAME, "any.upstream.test"])
def test_lookups_of_both_c_libraries_land_on_the_local_cache(
    installation: Installation, node: Node, libc: str, name: str
) -> None:
    before = redirects(installation)
    said = json.loads(node.exec("resolver", f"lookup-{libc}", name, "5").stdout)
    assert (said["calls"], said["failed"]) == (5, 0)
    assert redirects(installation) - before >= 5


@pytest.mark.parametrize("protocol", ["udp", "udp-connected", "tcp"])
def test_every_lookup_is_redirected_over_udp_and_tcp(installation: Installation, node: Node, protocol: str) -> None:
    before = redirects(installation)
    lookup = ("lookup-musl", "--raw", CLUSTER_DNS, dns.NAME, "--proto", protocol, "--count", "50")
    said = json.loads(node.exec("resolver", *lookup).stdout)
    assert (said["queries"], said["answers"]) == (50, 50)
    assert redirects(installation) - before == 50


def test_the_cache_reaches_the_clusters_dns_through_the_same_service(installation: Installation, node: Node) -> None:
    """It asks for a new name, which is not in the cache. CoreDNS keeps its connections upstream, so not every lookup
    makes a call: one is enough."""
    lookup = ("lookup-musl", "--raw", CLUSTER_DNS, f"x{os.getpid()}.upstream.test", "--proto", "udp", "--count", "1")
    assert json.loads(node.exec("resolver", *lookup).stdout)["answers"] == 1
    assert installation.metric(f'localredirect_passes_total{{policy="{dns.POLICY}",reason="from_backend"}}') >= 1


def test_a_cache_that_is_deleted_costs_no_lookup(installation: Installation, node: Node, tell: Tell) -> None:
    with dns.Lookups(node, "resolver", rates=RATES) as lookups:
        (pod,) = cache_pods(node)
        node.kubectl("delete", "pod", pod, "-n", "kube-system", "--wait=true")
        wait_until(lambda: [p for p in cache_pods(node) if is_ready(node, p)], "a new one is Ready", 60)  # type: ignore[arg-type, return-value]
        installation.wait_state(dns.POLICY, "Active")
    tell("cache deleted", lookups.results)
    assert [result.unanswered for result in lookups.results] == [0, 0, 0]


def test_a_rolling_update_costs_no_lookup(installation: Installation, node: Node, tell: Tell) -> None:
    with dns.Lookups(node, "resolver", rates=RATES) as lookups:
        node.kubectl("rollout", "restart", f"daemonset/{dns.CACHE}", "-n", "kube-system")
        node.kubectl("rollout", "status", f"daemonset/{dns.CACHE}", "-n", "kube-system", "--timeout=90s")
        wait_until(lambda: len(cache_pods(node)) == 1, "the former one is being deleted", 60)
        installation.wait_state(dns.POLICY, "Active")
    tell("rolling update", lookups.results)
    assert [result.unanswered for result in lookups.results] == [0, 0, 0]


def test_a_cache_that_fails_its_readiness_costs_no_lookup(installation: Installation, node: Node, tell: Tell) -> None:
    """The port of its probe is blocked and it goes on serving, like a cache that is overloaded or drained."""
    (pod,) = cache_pods(node)
    inside = ["nsenter", f"--net=/proc/{process_of(node, pod)}/ns/net", "nft"]
    with dns.Lookups(node, "resolver", rates=RATES) as lookups:
        rules = "table inet t { chain c { type filter hook input priority 0; tcp dport 8181 drop; }; }"
        subprocess.run([*inside, rules], check=True)
        installation.wait_state(dns.POLICY, "NoBackend")
        subprocess.run([*inside, "delete table inet t"], check=True)
        installation.wait_state(dns.POLICY, "Active")
    tell("readiness failing", lookups.results)
    assert [result.unanswered for result in lookups.results] == [0, 0, 0]


def test_after_a_crash_lookups_go_on(installation: Installation, node: Node, tell: Tell) -> None:
    """Until the kubelet notices a crash, nobody knows of it. Lookups until then are lost, and counted here."""
    (pod,) = cache_pods(node)
    with dns.Lookups(node, "resolver", rates=RATES) as lookups:
        crashed = process_of(node, pod)
        os.kill(crashed, signal.SIGKILL)
        installation.wait_state(dns.POLICY, "NoBackend")
        wait_until(lambda: process_of(node, pod) not in (0, crashed) and is_ready(node, pod), "it is back", 60)
        installation.wait_state(dns.POLICY, "Active")
    tell("cache crashed (kill -9)", lookups.results)
    assert all(result.answers > result.queries / 2 for result in lookups.results)


def test_a_cache_that_hangs_is_left_when_its_probe_has_failed(
    installation: Installation, node: Node, tell: Tell
) -> None:
    (pod,) = cache_pods(node)
    hung = process_of(node, pod)
    with dns.Lookups(node, "resolver", rates=RATES) as lookups:
        os.kill(hung, signal.SIGSTOP)
        try:
            installation.wait_state(dns.POLICY, "NoBackend")
            before = json.loads(node.exec("resolver", "lookup-musl", "other.upstream.test", "3").stdout)
        finally:
            os.kill(hung, signal.SIGCONT)
        installation.wait_state(dns.POLICY, "Active")
    tell("cache hung (SIGSTOP)", lookups.results)
    assert before["failed"] == 0
