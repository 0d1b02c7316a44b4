"""k8s/install.yaml, with nothing changed but the image, on a node whose cgroups systemd manages.

The kubelet's cgroup driver is systemd, cgroup2 is the only hierarchy, and `datapath.cgroup` is left at `auto`. There is
a backend of each QoS class, and a static Pod, whose uid in the API is not the one in its cgroup's name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from bpf.build import HOOKS
from config.version import VERSION
from tests.cluster.commands import REGISTRY, Checkout, block
from tests.cluster.install_yaml import NAMESPACE
from tests.cluster.installation import CONTROLLER, DAEMONSET, InstallationView
from tests.cluster.progress import step
from tests.cluster.ready import AGENT
from tests.systemd.node import STATIC_PODS, SystemdNode
from tests.systemd.pods import BACKENDS, CLIENT, REMOTE, STATIC, others, pod_of, policy, static_pod
from tests.systemd.ready import build_all

SECONDS = 1800.0
"""Much longer than anything takes."""
ROOT_CGROUP = "/sys/fs/cgroup"


class Agent(InstallationView):
    _ready_seconds = SECONDS
    _state_seconds = SECONDS

    def redirects(self, policy: str) -> float:
        return self.metric(f'localredirect_redirects_total{{policy="{policy}"}}')

    def passes_of_backends(self, policy: str) -> float:
        return self.metric(f'localredirect_passes_total{{policy="{policy}",reason="from_backend"}}')


@pytest.fixture(scope="module")
def node() -> Iterator[SystemdNode]:
    """A node with Pods of each kind, and nothing of ours. All tests share it, since each step takes long there."""
    with SystemdNode(build_all()) as made:
        with step("starting Pods"):
            made.apply(others())
            made.add_static_pod(static_pod())
            for name in (*map(pod_of, BACKENDS), REMOTE, CLIENT):
                made.wait_pod_ready(name, seconds=SECONDS)
        yield made


@pytest.fixture(scope="module")
def agent(node: SystemdNode) -> Agent:
    """Installed by the commands of README's quick start."""
    node.tag_image(AGENT, f"{REGISTRY}/localredirect:{VERSION}")
    installed = Agent(node)
    with step("installing"):
        Checkout(node).run(block("README.md", "newName"))
        installed.wait_ready()
        node.apply([policy(name) for name in BACKENDS])
        for name in BACKENDS:
            installed.wait_state(name, "Active")
    return installed


def cluster_ip(node: SystemdNode, backend: str) -> str:
    return str(node.api.get(f"/api/v1/namespaces/default/services/{backend}")["spec"]["clusterIP"])


def url(node: SystemdNode, backend: str) -> str:
    return f"http://{cluster_ip(node, backend)}/"


def ask(node: SystemdNode, pod: str, backend: str) -> str:
    """Who answers a Pod that calls the backend's Service."""
    return node.exec(pod, "wget", "-q", "-O-", url(node, backend)).stdout.strip()


def ask_from_host(node: SystemdNode, backend: str) -> str:
    return node.run("busybox", "wget", "-q", "-O-", url(node, backend)).stdout.strip()


def container_cgroup(node: SystemdNode, pod: str) -> str:
    status = node.api.get(f"/api/v1/namespaces/default/pods/{pod}")["status"]
    container = status["containerStatuses"][0]["containerID"].rpartition("/")[2]
    return node.run("find", ROOT_CGROUP, "-name", f"cri-containerd-{container}.scope").stdout.strip()


def test_the_node_has_systemd_slices_ipvs_and_a_static_pod_on_cgroup2(node: SystemdNode) -> None:
    assert node.run("cat", "/proc/1/comm").stdout == "systemd\n"
    assert node.run("findmnt", "--noheadings", "--output=FSTYPE,TARGET", "--types=cgroup,cgroup2").stdout.split() == [
        "cgroup2",
        ROOT_CGROUP,
    ]
    places = {name: container_cgroup(node, pod_of(name)) for name in BACKENDS}
    slices = f"{ROOT_CGROUP}/kubepods.slice/kubepods"
    assert places["guaranteed"].startswith(f"{slices}-pod")
    for name in ("burstable", "besteffort"):
        assert places[name].startswith(f"{slices}-{name}.slice/kubepods-{name}-pod")
    # With IPVS, the addresses of all Services are the node's own.
    served = node.run("ip", "-oneline", "address", "show", "dev", "kube-ipvs0").stdout
    assert [name for name in BACKENDS if f" {cluster_ip(node, name)}/32 " not in served] == []
    static = node.api.get(f"/api/v1/namespaces/default/pods/{pod_of(STATIC)}")["metadata"]
    assert static["annotations"]["kubernetes.io/config.hash"].replace("-", "_") in places[STATIC]
    assert static["uid"].replace("-", "_") not in places[STATIC]


def test_the_agent_attaches_to_the_root_cgroup_and_doctor_finds_nothing_wrong(node: SystemdNode, agent: Agent) -> None:
    attached = json.loads(node.run("bpftool", "-j", "cgroup", "show", ROOT_CGROUP).stdout)
    assert len(attached) == len(HOOKS)
    assert agent.status()["datapath"]["cgroup"] == f"/host{ROOT_CGROUP}"
    found = json.loads(agent.run("doctor", "-o", "json"))
    assert found
    assert [each for each in found if not each["ok"]] == []


@pytest.mark.parametrize(("workload", "container"), [("ds", "agent"), ("ds", "closer"), ("deploy", "controller")])
def test_containerds_profile_of_apparmor_is_enforced_on_us(agent: Agent, workload: str, container: str) -> None:
    name = {"ds": DAEMONSET, "deploy": CONTROLLER}[workload]
    profile = ("cat", "/proc/1/attr/current")
    done = agent.node.exec(f"{workload}/{name}", *profile, namespace=NAMESPACE, container=container)
    assert done.stdout.strip() == "cri-containerd.apparmor.d (enforce)"


@pytest.mark.parametrize("backend", BACKENDS)
def test_calls_of_a_pod_and_of_the_host_go_to_the_local_pod(node: SystemdNode, agent: Agent, backend: str) -> None:
    before = agent.redirects(backend)
    assert ask(node, CLIENT, backend) == backend
    assert ask_from_host(node, backend) == backend
    assert agent.redirects(backend) == before + 2


@pytest.mark.parametrize("caller", BACKENDS)
def test_p12_a_backends_own_calls_take_the_normal_way(node: SystemdNode, agent: Agent, caller: str) -> None:
    """Only its calls to the frontend of its own policy. For other policies it is a client like any other."""
    before = agent.passes_of_backends(caller)
    assert ask(node, pod_of(caller), caller) == REMOTE
    assert agent.passes_of_backends(caller) == before + 1
    other = BACKENDS[BACKENDS.index(caller) - 1]
    assert ask(node, pod_of(caller), other) == other


def test_a_static_pod_that_was_moved_away_and_back_is_known_by_its_new_cgroup(node: SystemdNode, agent: Agent) -> None:
    """The cgroup has the same path as before, and another id."""
    manifest, away = f"{STATIC_PODS}/{STATIC}.json", f"/run/{STATIC}.json"
    node.run("mv", manifest, away)
    agent.wait_state(STATIC, "NoBackend")
    assert ask(node, CLIENT, STATIC) == REMOTE
    node.kubectl("wait", "--for=delete", f"pod/{pod_of(STATIC)}", f"--timeout={SECONDS:g}s")
    node.run("mv", away, manifest)
    agent.wait_state(STATIC, "Active")
    assert ask(node, CLIENT, STATIC) == STATIC
    assert ask(node, pod_of(STATIC), STATIC) == REMOTE


@pytest.mark.parametrize("backend", BACKENDS)
def test_p18_a_container_that_is_killed_is_out_of_use_before_the_kubelet_knows(
    node: SystemdNode, agent: Agent, backend: str
) -> None:
    """The kubelet is stopped, so the agent can learn of it only from the container's cgroup."""
    cgroup = container_cgroup(node, pod_of(backend))
    node.run("systemctl", "kill", "--signal=STOP", "kubelet")
    try:
        node.run("bash", "-euc", 'echo 1 >"$0/cgroup.kill"', cgroup)
        agent.wait_state(backend, "NoBackend")
        assert ask_from_host(node, backend) == REMOTE
        (reported,) = (each for each in agent.status()["policies"] if each["name"] == backend)
        assert f"default/{pod_of(backend)} (a container of it has ended)" in reported["message"]
    finally:
        node.run("systemctl", "kill", "--signal=CONT", "kubelet")
    agent.wait_state(backend, "Active")
    assert ask(node, CLIENT, backend) == backend
