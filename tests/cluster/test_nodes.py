"""Three real nodes, each with another kind of network (tests.cluster.nodes): what a policy does stays on its node.

`echo` is a DaemonSet behind a Service of its own, whose Pods answer with their node's name, so that each call shows
where it landed. While something happens to one of the nodes, every node sends lookups at a constant rate through the
documented node-local cache, and the lost ones are counted. Nothing happens to node-1, where the cluster's DNS is.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest
import yaml

from tests.cluster import dns, workers
from tests.cluster.control_plane import Manifest
from tests.cluster.install_yaml import NAMESPACE
from tests.cluster.installation import CONTROLLER, DAEMONSET, Installation, install_manifests
from tests.cluster.load import Load, Result
from tests.cluster.machine import Proxy
from tests.cluster.node_files import Cni
from tests.cluster.node_view import is_ready
from tests.cluster.nodes import NETWORKS, Cluster, Member
from tests.cluster.overflows import Overflows
from tests.cluster.ready import build_all
from tests.lab.manifests import policy
from tests.lab.processes import wait_until

pytestmark = pytest.mark.timeout(600)  # the first one unpacks the images and starts three nodes

NAMES = [f"node-{number}" for number in range(1, len(NETWORKS) + 1)]
CLIENT = "client"
POLICY = "echo"
WITHOUT = "without-echo"
"""Label that keeps the Pod of `echo` off a node."""
CALLS = 20
RATE = 100
"""Lookups per second and node."""
LEASE_SECONDS = 30
"""The agent's default. Three agents that compile at once take long on two cores."""
ROLLOUT_SECONDS = 240
EVENT_COLUMNS = (
    "custom-columns=FIRST:.firstTimestamp,LAST:.lastTimestamp,COUNT:.count,"
    "KIND:.involvedObject.kind,NAME:.involvedObject.name,REASON:.reason,MESSAGE:.message"
)
RULES: dict[Proxy, tuple[str, str]] = {
    "nftables": ("nft list table ip kube-proxy", "default/echo/tcp"),
    "iptables-nft": ("iptables-nft-save -t nat", "default/echo:tcp"),
    "iptables-legacy": ("iptables-legacy-save -t nat", "default/echo:tcp"),
}
"""Mode of kube-proxy -> the command that shows its rules on a node, and words that they have for the Service."""
ROUTES: dict[Cni, str] = {"bridge": "dev cni0", "ptp": "dev veth"}


def echo() -> list[Manifest]:
    """The DaemonSet, which tolerates everything like a cache, and its Service with addresses of both families."""
    labels = {"app": "echo"}
    spec = workers.server("$NODE", labels=labels, tcp=(80,), udp=(80,))["spec"]
    field = {"fieldRef": {"fieldPath": "spec.nodeName"}}
    spec["containers"][0]["env"] = [{"name": "NODE", "valueFrom": field}]
    spec["tolerations"] = [{"operator": "Exists"}]
    chosen = [{"matchExpressions": [{"key": WITHOUT, "operator": "DoesNotExist"}]}]
    affinity = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": chosen}}
    spec["affinity"] = {"nodeAffinity": affinity}
    template = {"metadata": {"labels": labels}, "spec": spec}
    ports = [{"name": name, "port": 80, "protocol": name.upper()} for name in ("tcp", "udp")]
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "echo"},
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "echo"},
            "spec": {"selector": labels, "ipFamilyPolicy": "RequireDualStack", "ports": ports},
        },
    ]


def client(node: str) -> Manifest:
    """A Pod that stays on this node, whatever happens to the node."""
    manifest = dns.client(f"{CLIENT}-{node}")
    manifest["metadata"]["labels"] = {"app": CLIENT}
    manifest["spec"] |= {"nodeName": node, "tolerations": [{"operator": "Exists"}]}
    return manifest


class Loss(NamedTuple):
    result: Result
    dropped: int
    """By full queues of the node's own servers, because this machine is too busy."""

    def __str__(self) -> str:
        return f"{self.result}; {self.dropped} dropped by full queues"

    @property
    def is_none(self) -> bool:
        return self.result.lookups.unanswered <= self.dropped and self.result.kept.silent == 0


class Bed:
    """The cluster with all that the tests need, seen node by node."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.installed = {member.node_name: Installation(member) for member in cluster.members}

    def member(self, name: str) -> Member:
        return next(each for each in self.cluster.members if each.node_name == name)

    def addresses(self) -> list[str]:
        found = self.cluster.api.get("/api/v1/namespaces/default/services/echo")
        return [str(each) for each in found["spec"]["clusterIPs"]]

    def answers(self, name: str) -> Counter[str]:
        """Who answers a Pod of this node, by both protocols and families; an error counts as an answer."""
        worker = workers.beside(self.member(name), f"{CLIENT}-{name}")
        try:
            return Counter(
                answer.get("who", str(answer))
                for address in self.addresses()
                for protocol in ("tcp", "udp")
                for answer in (worker.do(protocol, address=address, port=80) for _ in range(CALLS))
            )
        finally:
            worker.kill()

    def wait_states(self, state: str, *names: str) -> None:
        for name in names or NAMES:
            self.installed[name].wait_state(POLICY, state)

    def wait_counted(self, nodes: str, seconds: float = 60) -> None:
        """Awaits that `kubectl get lr` shows this in the column NODES for both policies."""
        installed = self.installed[NAMES[0]]

        def shown() -> bool:
            return all(row["NODES"] == nodes for row in installed.policy_table())

        try:
            wait_until(shown, f"NODES is {nodes}", seconds)
        except AssertionError as error:
            error.add_note(f"{installed.policy_table()}\n{installed.logs(CONTROLLER)}")
            raise

    def wait_node(self, name: str, ready: str) -> None:
        self.cluster.wait(f"condition=Ready={ready}", 120, f"node/{name}")

    def controllers_node(self) -> str:
        """The node of the controller's Pod that is not being deleted; "" while there is none, or it has no node."""
        pods = self.installed[NAMES[0]].pods(CONTROLLER)
        living = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        return str(living[0]["spec"].get("nodeName", "")) if living else ""

    def wait_rolled_out(self) -> None:
        """Returns when every node has an agent of the present configuration."""
        self.cluster.kubectl(
            "rollout", "status", f"daemonset/{DAEMONSET}", "-n", NAMESPACE, f"--timeout={ROLLOUT_SECONDS}s"
        )

    def change_agents(self, strategy: str, **datapath: int) -> None:
        """Sets when the agents are replaced ("RollingUpdate", "OnDelete"), and changes their configuration."""
        config_map = f"/api/v1/namespaces/{NAMESPACE}/configmaps/{DAEMONSET}"
        config = yaml.safe_load(self.cluster.api.get(config_map)["data"]["agent.yaml"])
        config["datapath"] |= datapath
        text = yaml.safe_dump(config)
        self.cluster.api.patch(config_map, {"data": {"agent.yaml": text}})
        template = {"metadata": {"annotations": {"checksum/config": str(datapath)}}} if datapath else {}
        kind = {"type": strategy, "rollingUpdate": None}
        daemonset = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{DAEMONSET}"
        self.cluster.api.patch(daemonset, {"spec": {"updateStrategy": kind, "template": template}})

    def replace_cache(self, name: str) -> None:
        """Gives a node that had lost the cluster's DNS a node-local cache that remembers nothing.

        The former one got its last failures seconds after the DNS was back. It answers with them when its good answer
        has expired.
        """
        of_node = ("-l", f"app={dns.CACHE}", "--field-selector", f"spec.nodeName={name}")
        self.cluster.kubectl("delete", "pods", "-n", "kube-system", *of_node)
        self.cluster.kubectl("rollout", "status", f"daemonset/{dns.CACHE}", "-n", "kube-system", "--timeout=60s")
        self.installed[name].wait_state(dns.POLICY, "Active")

    def builds(self) -> dict[str, str]:
        return {name: str(installed.status()["build"]) for name, installed in self.installed.items()}

    def load_while(self, happen: Callable[[], None], *names: str) -> dict[str, Loss]:
        """Node -> what the lookups of its Pod came to, from before something happens until after it."""
        chosen = names or NAMES
        with ExitStack() as stack:
            overflows = {name: stack.enter_context(Overflows(self.member(name), "kube-system")) for name in chosen}
            loads = {name: Load(self.member(name), f"{CLIENT}-{name}", rate=RATE, kept=2) for name in chosen}
            with ExitStack() as running:
                for load in loads.values():
                    running.enter_context(load)
                happen()
            return {name: Loss(load.result, overflows[name].count()) for name, load in loads.items()}

    def assert_nothing_lost(self, losses: dict[str, Loss]) -> None:
        """A failure shows the cluster's Events and the log of each agent."""
        found = {name: str(loss) for name, loss in losses.items() if not loss.is_none}
        if found:
            command = ("get", "events", "-A", "--sort-by=.lastTimestamp", "-o", EVENT_COLUMNS)
            events = self.cluster.kubectl(*command, check=False).stdout
            logs = (f"agent of {name}:\n{self.installed[name].logs()}" for name in NAMES)
            pytest.fail("\n".join((f"lookups were lost: {found}", events, *logs)))


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    """Installs everything but the policies. The controller is not on node-1."""
    with Cluster(build_all()) as cluster:
        made = Bed(cluster)
        cluster.apply([*cluster_dns(), *echo(), *map(client, NAMES)])
        cluster.kubectl("rollout", "status", "deployment/coredns", "-n", "kube-system", "--timeout=60s")
        cluster.kubectl("cordon", NAMES[0])
        cluster.apply(install_manifests(cluster.members[0], lease_seconds=LEASE_SECONDS))
        made.wait_rolled_out()
        cluster.kubectl("rollout", "status", "daemonset/echo", "--timeout=60s")
        cluster.wait("condition=Ready", 60, *(f"pod/{CLIENT}-{name}" for name in NAMES))
        yield made


def cluster_dns() -> list[Manifest]:
    """Two replicas on node-1. They may be slow for some seconds, as they are when agents compile, without being taken
    out of the Service."""
    manifests = dns.cluster_dns()
    (deployment,) = (each for each in manifests if each["kind"] == "Deployment")
    deployment["spec"]["replicas"] = 2
    spec = deployment["spec"]["template"]["spec"]
    spec["nodeSelector"] = {"kubernetes.io/hostname": NAMES[0]}
    spec["containers"][0]["readinessProbe"] |= {"timeoutSeconds": 5, "failureThreshold": 5}
    return manifests


@pytest.fixture(scope="module")
def active(bed: Bed) -> Bed:
    """With both policies in force on every node."""
    ports = ((80, "TCP"), (80, "UDP"))
    bed.cluster.apply(policy(POLICY, service_name="echo", ports=ports, backend_port=80, app="echo"))
    dns.apply_example(bed.cluster.members[0])
    bed.wait_states("Active")
    for installed in bed.installed.values():
        installed.wait_state(dns.POLICY, "Active")
    return bed


ReportLosses = Callable[[str, dict[str, Loss]], None]


@pytest.fixture
def report_losses(capsys: pytest.CaptureFixture[str]) -> ReportLosses:
    """Prints what was lost on each node, also when the test passes."""

    def report(what: str, losses: dict[str, Loss]) -> None:
        with capsys.disabled():
            for name, loss in losses.items():
                print(f"\n{what}: {name}: {loss}", end="")

    return report


@pytest.mark.parametrize("name", NAMES)
def test_without_a_policy_calls_reach_the_pods_of_all_nodes_in_each_network(bed: Bed, name: str) -> None:
    """Also shows that every node has its own way of connecting Pods and of serving Services."""
    member = bed.member(name)
    command, words = RULES[member.proxy]
    assert words in member.run(*command.split()).stdout
    assert ROUTES[member.cni] in member.run("ip", "route").stdout
    wait_until(lambda: set(bed.answers(name)) == set(NAMES), "Pods of all nodes answer, and nothing fails", 30)


@pytest.mark.parametrize("name", NAMES)
def test_calls_go_to_the_pod_of_their_own_node_in_each_network(active: Bed, name: str) -> None:
    assert active.answers(name) == {name: 4 * CALLS}
    assert active.installed[name].metric(f'localredirect_redirects_total{{policy="{POLICY}"}}') >= 4 * CALLS


def test_a_node_without_a_backend_takes_the_normal_way_to_another_node_until_it_has_one(active: Bed) -> None:
    active.wait_counted("3/3")
    without = NAMES[2]
    active.cluster.kubectl("label", "node", without, f"{WITHOUT}=")
    active.wait_states("NoBackend", without)
    wait_until(lambda: set(active.answers(without)) == set(NAMES[:2]), "the other nodes' Pods answer", 30)
    for name in NAMES[:2]:
        assert set(active.answers(name)) == {name}
    rows = {row["NAME"]: row["NODES"] for row in active.installed[without].policy_table()}
    assert rows == {POLICY: "2/3", dns.POLICY: "3/3"}
    active.cluster.kubectl("label", "node", without, f"{WITHOUT}-")
    active.wait_states("Active", without)
    assert set(active.answers(without)) == {without}
    active.wait_counted("3/3")


def test_agents_of_two_builds_serve_side_by_side_during_a_rollout(active: Bed, report_losses: ReportLosses) -> None:
    """Another size of a map makes another build. The roll-out pauses after one node, so that the test can look at all
    nodes."""
    before = active.builds()
    one = NAMES[1]

    def roll_out() -> None:
        active.change_agents("OnDelete", max_backends=1024)
        former = active.installed[one].agent_pod()["metadata"]["name"]
        active.cluster.kubectl("delete", "pod", "-n", NAMESPACE, former)
        wait_until(lambda: has_ready_agent(active, one, besides=former), "the node has another agent", 120)
        during = active.builds()
        assert [name for name in NAMES if during[name] != before[name]] == [one]
        for name in NAMES:
            assert set(active.answers(name)) == {name}
        active.change_agents("RollingUpdate")
        active.wait_rolled_out()
        assert set(active.builds().values()) == {during[one]}

    losses = active.load_while(roll_out)
    report_losses("two builds", losses)
    active.assert_nothing_lost(losses)


def has_ready_agent(bed: Bed, node: str, *, besides: str) -> bool:
    return any(
        pod["metadata"]["name"] != besides and is_ready(pod)
        for pod in bed.installed[node].pods(DAEMONSET)
        if pod["spec"].get("nodeName") == node
    )


def test_nobody_notices_that_a_node_is_drained_and_the_controller_moves(
    active: Bed, report_losses: ReportLosses
) -> None:
    node = active.controllers_node()
    others = [name for name in NAMES if name != node]

    def drain() -> None:
        staying = f"--pod-selector=app!={CLIENT}"
        active.cluster.kubectl(
            "drain", node, "--ignore-daemonsets", "--force", "--delete-emptydir-data", staying, "--timeout=60s"
        )
        wait_until(lambda: active.controllers_node() in others, "the controller has another node", 60)
        active.cluster.kubectl("rollout", "status", f"deployment/{CONTROLLER}", "-n", NAMESPACE, "--timeout=60s")
        active.wait_counted("3/3")
        active.cluster.kubectl("uncordon", node)

    losses = active.load_while(drain)
    report_losses("drained", losses)
    active.assert_nothing_lost(losses)


def test_a_node_that_is_cut_off_serves_itself_and_nobody_else_notices(active: Bed, report_losses: ReportLosses) -> None:
    (node,) = set(NAMES[1:]) - {active.controllers_node()}

    def cut() -> None:
        active.member(node).cut()
        try:
            active.wait_node(node, "Unknown")
            active.wait_counted("2/3")
            assert set(active.answers(node)) == {node}
        finally:
            active.member(node).connect()
        active.wait_node(node, "True")
        active.wait_counted("3/3")
        wait_until(lambda: looks_up(active, node), "its cache has an upstream again", 30)

    losses = active.load_while(cut)
    report_losses(f"{node} cut off", losses)
    # Its own lookups need the cluster's DNS, on another node, whenever the cache's answer has expired.
    assert losses[node].result.kept.silent == 0
    active.assert_nothing_lost({name: loss for name, loss in losses.items() if name != node})
    # The agents of all nodes learn of changes again.
    for enabled, state in ((False, "Disabled"), (True, "Active")):
        active.cluster.kubectl("patch", "lr", POLICY, "--type=merge", "-p", json.dumps({"spec": {"enabled": enabled}}))
        active.wait_states(state)
    active.replace_cache(node)


def looks_up(bed: Bed, node: str) -> bool:
    return bed.member(node).exec(f"{CLIENT}-{node}", "lookup-musl", dns.NAME, "1", check=False).returncode == 0


def test_nobody_else_notices_that_the_controllers_node_dies_and_comes_back(
    active: Bed, report_losses: ReportLosses
) -> None:
    """The controller starts on another node after 30 s, as its tolerations say."""
    node = active.controllers_node()
    others = [name for name in NAMES if name != node]

    def die() -> None:
        active.member(node).power_off()
        active.wait_node(node, "Unknown")
        wait_until(lambda: active.controllers_node() in others, "the controller has another node", 120)
        active.wait_counted("2/3", 120)
        for name in others:
            assert set(active.answers(name)) == {name}
        active.member(node).power_on()
        active.wait_node(node, "True")
        active.wait_rolled_out()
        active.wait_states("Active", node)
        active.wait_counted("3/3", 120)

    losses = active.load_while(die, *others)
    report_losses(f"{node} dead", losses)
    active.assert_nothing_lost(losses)
    active.cluster.wait("condition=Ready", 60, f"pod/{CLIENT}-{node}")
    assert set(active.answers(node)) == {node}
