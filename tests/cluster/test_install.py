"""The commands of README and docs install, change, stop and remove us on a node; and which rights we have there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from bpf.build import HOOKS
from config.version import VERSION
from tests.cluster import dns, examples, hollow, workers
from tests.cluster.commands import (
    DNS_EXAMPLE,
    INSTALLATION,
    REGISTRY,
    TROUBLESHOOTING,
    Checkout,
    block,
    inline,
    yaml_block,
)
from tests.cluster.install_yaml import NAMESPACE
from tests.cluster.installation import CONTROLLER, DAEMONSET, Installation, agent_cgroup, load_images
from tests.cluster.machine import Machine
from tests.cluster.node import Node
from tests.cluster.node_view import is_ready
from tests.cluster.ready import AGENT
from tests.lab.processes import wait_until

CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_BPF = 12, 21, 39


@pytest.fixture(scope="module")
def bare() -> Iterator[Node]:
    """A node with the images, the cluster's DNS and the examples' Pods, on which nothing of ours runs yet.

    Our image has the name that the commands give it, and not the one in the manifests.
    """
    with Node() as node:
        load_images(node)
        node.tag_image(AGENT, f"{REGISTRY}/localredirect:{VERSION}")
        examples.deploy(node)
        with dns.upstream(node):
            dns.deploy(node)
            yield node


@pytest.fixture
def checkout(bare: Node) -> Checkout:
    return Checkout(bare)


def answers(node: Machine) -> list[str]:
    """Who answers at the examples' four frontends, first to a Pod, then to the host."""
    found = []
    for caller in (workers.beside(node, "client"), workers.on_host(node)):
        for address, port in examples.frontends(node):
            found.append(str(caller.do("tcp", address=address, port=port).get("who", "nobody")))
        caller.kill()
    return found


LOCAL = ["local"] * 8
NORMAL = ["nobody", "nobody", "remote", "remote"] * 2


def limits(installation: Installation) -> set[int]:
    return {int(row["qos_limit"]) for row in installation.inspect("policies")}


def wait_active(installation: Installation) -> None:
    """Awaits that agent and controller are Ready, and that both examples are in force."""
    installation.wait_ready()
    examples.wait_active(installation)


def assert_nothing_is_redirected(installation: Installation) -> None:
    """No program is attached, nothing is pinned, and calls take the normal way."""
    assert installation.attached() == []
    assert installation.pins() == []
    assert answers(installation.node) == NORMAL


def agent_is_back(installation: Installation) -> bool:
    """Whether a Pod that runs the agent is Ready on the real node."""
    return any(
        pod["spec"].get("nodeName") == installation.node.node_name
        and pod["spec"]["containers"][0]["command"] == ["python", "run.py"]
        and is_ready(pod)
        for pod in installation.pods(DAEMONSET)
        if "deletionTimestamp" not in pod["metadata"]
    )


def kustomize_cgroup(checkout: Checkout, node: Node) -> None:
    """Configures the node's cgroup instead of the machine's root, by the patches of ConfigMaps that the docs show."""
    patches = yaml_block(INSTALLATION, "REDIRECT_QOS_LIMIT")["patches"]
    found = [yaml.safe_load(each["patch"]) for each in patches]
    config_maps = [each for each in found if each["kind"] == "ConfigMap"]
    for each in config_maps:
        config = yaml.safe_load(each["data"]["agent.yaml"])
        del config["redirect"]
        config["datapath"]["cgroup"] = agent_cgroup(node)
        each["data"]["agent.yaml"] = yaml.safe_dump(config)
    checkout.change("k8s/kustomization.yaml", {"patches": [{"patch": yaml.safe_dump(each)} for each in config_maps]})


STOP = block(INSTALLATION, "--patch-file k8s/detach.yaml")


@pytest.mark.timeout(900)
def test_the_documented_kubectl_commands_work_one_after_the_other(bare: Node, checkout: Checkout) -> None:
    """README and docs/installation.md: install, the five commands, settings, stop, one node, uninstall."""
    installed = Installation(bare)
    kustomize_cgroup(checkout, bare)
    install = block("README.md", "newName")
    checkout.run(install)
    installed.wait_ready()
    examples.apply(installed)
    assert answers(bare) == LOCAL
    agent = installed.agent_pod()["metadata"]["uid"]
    status = inline(TROUBLESHOOTING, "exec POD -- python run.py status")
    output = checkout.run(f"{status} -o json".replace("POD", installed.agent_pod()["metadata"]["name"])).stdout
    assert {each["name"] for each in json.loads(output)["policies"]} == set(examples.NAMES.values())

    five = block("README.md", "kubectl apply -f k8s/examples/node-local-dns")
    assert five == block(DNS_EXAMPLE, "kubectl apply -f k8s/examples/node-local-dns")
    checkout.run(five)
    installed.wait_state(dns.POLICY, "Active")
    checkout.run(block(DNS_EXAMPLE, "inspect policies"))
    assert installed.agent_pod()["metadata"]["uid"] == agent, "the image is the one that was named"
    checkout.run("kubectl delete -f k8s/examples/node-local-dns")

    checkout.run(inline(INSTALLATION, "kubectl set env").replace("100", "50"))
    wait_active(installed)
    assert limits(installed) == {50}
    checkout.run("kubectl apply -k k8s")
    wait_active(installed)
    assert limits(installed) == {0}, "undone, as the page says"
    checkout.change(
        "k8s/kustomization.yaml", {"patches": yaml_block(INSTALLATION, "REDIRECT_QOS_LIMIT")["patches"][:1]}
    )
    checkout.run("kubectl apply -k k8s")
    wait_active(installed)
    assert limits(installed) == {100}
    checkout.run(block(INSTALLATION, "rollout restart"))
    wait_active(installed)

    checkout.run(STOP)
    assert_nothing_is_redirected(installed)
    checkout.run(block(INSTALLATION, "delete pods").replace("--wait=false", ""))
    installed.wait_ready()
    assert_nothing_is_redirected(installed)  # new Pods stay stopped as well
    checkout.run("kubectl apply -k k8s")
    wait_active(installed)
    assert answers(bare) == LOCAL

    one_node = block(INSTALLATION, "kubectl label node NODE balancing.elf.io/detached=")
    pod = installed.agent_pod()["metadata"]["name"]
    checkout.run(one_node.replace("POD", pod).replace("NODE", bare.node_name))
    installed.wait_gone(DAEMONSET)
    assert_nothing_is_redirected(installed)
    checkout.run(block(INSTALLATION, "balancing.elf.io/detached-").replace("NODE", bare.node_name))
    wait_until(lambda: bool(installed.pods(DAEMONSET)), "the node has an agent again", 30)
    wait_active(installed)
    assert answers(bare) == LOCAL

    checkout.run(STOP)
    assert_nothing_is_redirected(installed)
    checkout.run(block(INSTALLATION, "kubectl delete -k k8s"))
    assert bare.kubectl("get", "namespace", NAMESPACE, check=False).returncode == 1
    assert bare.kubectl("get", "lr", *examples.NAMES.values()).returncode == 0
    assert answers(bare) == NORMAL


@pytest.mark.timeout(900)
def test_the_documented_helm_commands_work_one_after_the_other(bare: Node, checkout: Checkout) -> None:
    """Runs after the test for kubectl, if that was run: then the CRD exists, and no Helm release owns it."""
    helm = Installation(bare)
    assert answers(bare) == NORMAL
    values, install = block("README.md", "helm upgrade --install").splitlines()
    checkout.run(values)
    checkout.change("values.yaml", {"config": {"datapath": {"cgroup": agent_cgroup(bare)}}})
    checkout.change("values.yaml", {"uninstall": {"timeoutSeconds": 15}})
    checkout.run(block(INSTALLATION, "--take-ownership"))
    helm.wait_ready()
    examples.apply(helm)
    assert answers(bare) == LOCAL
    assert len(helm.attached()) == len(HOOKS)
    assert limits(helm) == {0}

    # The Pod becomes Ready only if the kubelet probes the address on which the agent listens.
    checkout.change("values.yaml", {"config": {"health": {"address": "::1"}}})
    checkout.run(install)
    helm.wait_ready()
    checkout.change("values.yaml", {"config": {"health": {"address": "127.0.0.1"}}})

    checkout.change("values.yaml", {"feature": yaml_block(INSTALLATION, "feature:")["feature"]})
    checkout.run(install)
    wait_active(helm)
    assert limits(helm) == {100}
    checkout.run(inline(INSTALLATION, "kubectl set env").replace("100", "50"))
    wait_active(helm)
    assert limits(helm) == {50}
    checkout.run(install)
    wait_active(helm)
    assert limits(helm) == {100}, "undone, as the page says"

    checkout.run(STOP)
    assert_nothing_is_redirected(helm)
    checkout.run(install)
    wait_active(helm)
    assert answers(bare) == LOCAL

    # A node reports, but has no agent that could detach. So nothing is deleted, and the release can be rolled back.
    (other,) = hollow.add_nodes(bare.api, 1)
    checkout.run(f"kubectl cordon {other}")  # the hook's own Pod would not run there
    uninstall = checkout.run("helm uninstall localredirect -n elf", check=False)
    assert uninstall.returncode
    assert f"node {other}: Pod balancing-agent-" in uninstall.stdout and "nothing is deleted" in uninstall.stdout
    last = json.loads(checkout.run("helm history localredirect -n elf -o json").stdout)[-1]
    checkout.run(f"helm rollback localredirect {last['revision']} -n elf")
    checkout.run(block(INSTALLATION, "delete pods"))
    wait_until(lambda: agent_is_back(helm), "the agent is back", 60)
    examples.wait_active(helm)

    # A node whose kubelet does not report is skipped, and named.
    unknown = {"type": "Ready", "status": "Unknown", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    bare.api.patch(f"/api/v1/nodes/{other}/status", {"status": {"conditions": [unknown]}})
    uninstall = checkout.run("helm uninstall localredirect -n elf --wait=false")
    assert f"node {other}: its kubelet does not report" in uninstall.stdout
    hollow.remove_pods(bare.api, namespace=NAMESPACE, selector="app.kubernetes.io/component=agent")
    hollow.remove_nodes(bare.api, [other])
    helm.wait_gone(DAEMONSET)
    helm.wait_gone(CONTROLLER)
    assert_nothing_is_redirected(helm)
    assert bare.kubectl("get", "lr", *examples.NAMES.values()).returncode == 0


# --- rights


CONTAINERS = {
    "agent": (DAEMONSET, {CAP_BPF, CAP_NET_ADMIN}),
    "closer": (DAEMONSET, {CAP_SYS_ADMIN, CAP_NET_ADMIN}),
    "controller": (CONTROLLER, set[int]()),
}
"""Container -> the workload whose Pods have it, and its capabilities."""


def in_container(installation: Installation, container: str, *command: str) -> str:
    """What a command prints there, errors included."""
    name, _ = CONTAINERS[container]
    (pod,) = (each for each in installation.pods(name) if "deletionTimestamp" not in each["metadata"])
    done = installation.node.exec(
        pod["metadata"]["name"], *command, namespace=NAMESPACE, container=container, check=False
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_container_has_its_capabilities_and_cannot_get_more(installation: Installation, container: str) -> None:
    _, capabilities = CONTAINERS[container]
    lines = in_container(installation, container, "cat", "/proc/1/status").splitlines()
    status = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == sum(1 << each for each in capabilities)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert ("0" in status["Uid"].split()) == bool(capabilities), "the controller is not root"


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_root_file_system_is_read_only(installation: Installation, container: str) -> None:
    output = in_container(installation, container, "python", "-c", "open('/app/new', 'w')")
    assert "Read-only file system" in output


WRITE_ANYWHERE = """
import os
for folder in ("/tmp", "/host/sys/fs/bpf/balancing", "/run/netns", "/etc/balancing"):
    try:
        os.mkdir(folder + "/new")
    except OSError as error:
        print(error.strerror)
"""
OPEN_SOCKETS = """
import os
links = [os.readlink(f"/proc/1/fd/{each}") for each in os.listdir("/proc/1/fd")]
print([each for each in links if each.startswith("socket:")])
"""


def test_the_closer_talks_to_nobody_and_writes_nowhere(installation: Installation) -> None:
    token = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105
    assert in_container(installation, "agent", "ls", token).split() == ["ca.crt", "namespace", "token"]
    assert in_container(installation, "closer", "ls", token).split() == []
    assert in_container(installation, "closer", "python", "-c", OPEN_SOCKETS).strip() == "[]"
    refused = in_container(installation, "closer", "python", "-c", WRITE_ANYWHERE)
    assert refused.splitlines() == ["Read-only file system"] * 4


READS = {
    ("localredirectpolicies.balancing.elf.io", "get list watch"),
    ("balancingpolicies.balancing.elf.io", "get list watch"),
    ("services", "get list watch"),
    ("pods", "get list watch"),
    ("nodes", "get list watch"),
}
RIGHTS = {
    DAEMONSET: READS,
    CONTROLLER: READS
    | {
        ("localredirectpolicies.balancing.elf.io/status", "patch"),
        ("leases.coordination.k8s.io", "create"),
        ("leases.coordination.k8s.io [balancing-controller]", "get update"),
        ("leases.coordination.k8s.io [balancing-controller]", "list"),
    },
}


def rights(node: Machine, account: str) -> set[tuple[str, str]]:
    """Rights of a service account in its own namespace, without those that everybody has: resource [name], and
    verbs."""

    def ask(user: str) -> set[tuple[str, str]]:
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": NAMESPACE},
        }
        output = node.kubectl(
            "create", "-o", "json", "-f", "-", "--validate=false", f"--as={user}", input=json.dumps(review)
        ).stdout
        return {each for rule in json.loads(output)["status"]["resourceRules"] for each in _flat(rule)}

    return ask(f"system:serviceaccount:{NAMESPACE}:{account}") - ask(f"system:serviceaccount:{NAMESPACE}:default")


def _flat(rule: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            plural, _, sub = resource.partition("/")
            name = ".".join(filter(None, (plural, group))) + (f"/{sub}" if sub else "")
            names = f" [{', '.join(rule['resourceNames'])}]" if rule.get("resourceNames") else ""
            yield name + names, " ".join(sorted(rule["verbs"]))


@pytest.mark.parametrize("account", RIGHTS)
def test_the_service_accounts_can_do_what_they_need_and_nothing_else(installation: Installation, account: str) -> None:
    assert rights(installation.node, account) == RIGHTS[account]
    output = installation.node.kubectl(
        "auth", "can-i", "--list", f"--as=system:serviceaccount:{NAMESPACE}:{account}", "-n", NAMESPACE
    ).stdout
    assert "localredirectpolicies.balancing.elf.io" in output
    assert "secrets" not in output
    assert "*" not in [line.split()[0] for line in output.splitlines()[1:]]


def test_the_controller_leads_by_its_lease(installation: Installation) -> None:
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{CONTROLLER}"
    wait_until(lambda: installation.node.api_has(lease), "somebody leads", 30)
    holder = installation.node.api.get(lease)["spec"]["holderIdentity"]
    assert holder.startswith(CONTROLLER)
