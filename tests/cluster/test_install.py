"""Installing, changing and removing, by Helm and by kubectl, on a node of its own; and what the two may do.

`kubectl apply -f k8s/install.yaml` itself is the fixture `installation`, on which most other tests run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bpf.build import HOOKS
from tests.cluster import examples, workers
from tests.cluster.binaries import ROOT
from tests.cluster.installation import (
    CHART,
    CONTROLLER,
    DAEMONSET,
    INSTALL,
    NAMESPACE,
    Installation,
    load_images,
)
from tests.cluster.node import Node
from tests.lab.lab import wait_until

RELEASE = "localredirect"
CAP_NET_ADMIN, CAP_BPF = 12, 39


@pytest.fixture(scope="module")
def bare() -> Iterator[Node]:
    """A node with the images and the examples' Pods, and nothing of ours that acts."""
    with Node() as node:
        load_images(node)
        examples.deploy(node)
        yield node


def answers(node: Node) -> list[str]:
    """Who answers at the examples' four frontends, asked by a Pod and by the host."""
    found = []
    for caller in (workers.beside(node, "client"), workers.on_host(node)):
        for address, port in examples.frontends(node):
            found.append(str(caller.do("tcp", address=address, port=port).get("who", "nobody")))
        caller.kill()
    return found


LOCAL = ["local"] * 8
NORMAL = ["nobody", "nobody", "remote", "remote"] * 2


def apply_examples(installed: Installation) -> None:
    for name, policy in examples.NAMES.items():
        installed.node.apply(examples.example(name))
        installed.wait_state(policy, "Active")


def limits(installation: Installation) -> set[int]:
    return {int(row["qos_limit"]) for row in installation.inspect("policies")}


def wait_active(installation: Installation) -> None:
    installation.wait_ready()
    for policy in examples.NAMES.values():
        installation.wait_state(policy, "Active")


def test_helm_installs_changes_and_removes_and_leaves_nothing_in_the_kernel(bare: Node) -> None:
    helm = Installation(bare)
    assert answers(bare) == NORMAL
    chart = ("--namespace", NAMESPACE, *helm.helm_values())
    helm.helm("install", RELEASE, str(CHART), "--create-namespace", *chart, "--wait")
    helm.wait_ready()
    apply_examples(helm)
    assert answers(bare) == LOCAL
    assert len(helm.attached()) == len(HOOKS)
    assert limits(helm) == {0}

    helm.helm("upgrade", RELEASE, str(CHART), *chart, "--set=feature.redirectQosLimit=100", "--wait")
    wait_active(helm)
    assert limits(helm) == {100}

    bare.kubectl("set", "env", f"daemonset/{DAEMONSET}", "-n", NAMESPACE, "REDIRECT_QOS_LIMIT=50")
    wait_active(helm)
    assert limits(helm) == {50}
    assert answers(bare) == LOCAL

    helm.helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait")
    helm.wait_gone(DAEMONSET)
    helm.wait_gone(CONTROLLER)
    assert helm.attached() == []
    assert helm.pins() == []
    assert answers(bare) == NORMAL
    assert bare.kubectl("get", "lr", *examples.NAMES.values()).returncode == 0


def test_kubectl_removes_what_it_installed_and_leaves_nothing_in_the_kernel(bare: Node) -> None:
    installed = Installation(bare)
    installed.apply()
    apply_examples(installed)
    assert answers(bare) == LOCAL
    detach = ("--patch-file", str(ROOT / "k8s" / "detach.yaml"))
    bare.kubectl("-n", NAMESPACE, "patch", "daemonset", DAEMONSET, *detach)
    bare.kubectl("-n", NAMESPACE, "rollout", "status", "daemonset", DAEMONSET, "--timeout=60s")
    assert installed.attached() == []
    assert installed.pins() == []
    bare.kubectl("delete", "-f", str(INSTALL), "-l", "app.kubernetes.io/name=localredirect")
    assert bare.kubectl("get", "namespace", NAMESPACE, check=False).returncode == 1
    assert bare.kubectl("get", "lr", *examples.NAMES.values()).returncode == 0
    assert answers(bare) == NORMAL


# --- rights


def status_of(installation: Installation, name: str) -> dict[str, str]:
    """/proc/PID/status of the Python process of a Pod of ours, as the node sees it."""
    (pod,) = (each for each in installation.pods(name) if "deletionTimestamp" not in each["metadata"])
    cgroup = installation.node.pod_cgroup(pod["metadata"]["name"], namespace=NAMESPACE)
    for path in cgroup.glob("*/cgroup.procs"):
        for process in path.read_text().split():
            text = Path(f"/proc/{process}/status").read_text()
            if text.startswith("Name:\tpython"):
                return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    msg = f"no Python runs in {pod['metadata']['name']}"
    raise LookupError(msg)


def test_the_agent_has_two_capabilities_and_no_way_to_more(installation: Installation) -> None:
    status = status_of(installation, DAEMONSET)
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 1 << CAP_BPF | 1 << CAP_NET_ADMIN
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_the_controller_has_no_capabilities_and_is_not_root(installation: Installation) -> None:
    status = status_of(installation, CONTROLLER)
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert "0" not in status["Uid"].split()
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


@pytest.mark.parametrize("name", [DAEMONSET, CONTROLLER])
def test_the_root_file_system_is_read_only(installation: Installation, name: str) -> None:
    (pod,) = (each for each in installation.pods(name) if "deletionTimestamp" not in each["metadata"])
    touch = ("python", "-c", "open('/app/new', 'w')")
    done = installation.node.exec(pod["metadata"]["name"], *touch, namespace=NAMESPACE, check=False)
    assert "Read-only file system" in done.stderr


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
        ("events", "create"),
        ("leases.coordination.k8s.io", "create"),
        ("leases.coordination.k8s.io [balancing-controller]", "get update"),
        ("leases.coordination.k8s.io [balancing-controller]", "list"),
    },
}


def rights(node: Node, account: str) -> set[tuple[str, str]]:
    """Of a service account, in its own namespace: resource [name] and verbs; without those that everybody has."""

    def ask(user: str) -> set[tuple[str, str]]:
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": NAMESPACE},
        }
        said = node.kubectl(
            "create", "-o", "json", "-f", "-", "--validate=false", f"--as={user}", input=json.dumps(review)
        ).stdout
        return {each for rule in json.loads(said)["status"]["resourceRules"] for each in _flat(rule)}

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
    said = installation.node.kubectl(
        "auth", "can-i", "--list", f"--as=system:serviceaccount:{NAMESPACE}:{account}", "-n", NAMESPACE
    ).stdout
    assert "localredirectpolicies.balancing.elf.io" in said
    assert "secrets" not in said
    assert "*" not in [line.split()[0] for line in said.splitlines()[1:]]


def test_the_controller_leads_by_its_lease(installation: Installation) -> None:
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{CONTROLLER}"
    wait_until(lambda: installation.node.api_has(lease), "somebody leads", 30)
    holder = installation.node.api.get(lease)["spec"]["holderIdentity"]
    assert holder.startswith(CONTROLLER)
