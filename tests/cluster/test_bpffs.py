"""The agent's directory on the node's bpffs. The agent's Pod sees nothing else of that file system."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.cluster.install_yaml import NAMESPACE
from tests.cluster.installation import DAEMONSET, Installation
from tests.lab.processes import wait_until

BPFFS = "/sys/fs/bpf"
WHOLE = {
    "spec": {
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "agent",
                        "volumeMounts": [
                            {"$patch": "delete", "mountPath": f"/host{BPFFS}/balancing"},
                            {"name": "bpffs", "mountPath": f"/host{BPFFS}", "mountPropagation": "HostToContainer"},
                        ],
                    }
                ],
                "volumes": [{"name": "bpffs", "hostPath": {"path": BPFFS, "type": "Directory"}}],
            }
        }
    }
}
"""A patch that mounts the whole bpffs, as versions up to 0.1 did."""


@pytest.fixture
def template_restored(installation: Installation) -> Iterator[None]:
    """Restores the template of the Pods after the test."""
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{DAEMONSET}"
    template = installation.node.api.get(path)["spec"]["template"]
    yield
    patch = [{"op": "replace", "path": "/spec/template", "value": template}]
    installation.node.kubectl(
        "patch", "daemonset", DAEMONSET, "-n", NAMESPACE, "--type=json", f"--patch={json.dumps(patch)}"
    )
    installation.wait_ready()


def replace_agent(installation: Installation) -> None:
    """Deletes its Pod. Returns when there is another one, which may never get ready."""
    name = installation.agent_pod()["metadata"]["name"]
    installation.node.kubectl("delete", "pod", name, "-n", NAMESPACE)
    wait_until(
        lambda: any(pod["metadata"]["name"] != name for pod in installation.pods(DAEMONSET)),
        "the agent has another Pod",
        30,
    )


def links(installation: Installation) -> set[int]:
    return {row["link_id"] for row in installation.inspect("programs") if row["attached"]}


def test_the_agent_sees_no_pins_of_others_and_changes_none(installation: Installation) -> None:
    node = installation.node
    node.run("mkdir", "-p", f"{BPFFS}/cilium/devices")
    try:
        replace_agent(installation)
        installation.wait_ready()
        pod = installation.agent_pod()["metadata"]["name"]
        seen = node.exec(pod, "ls", f"/host{BPFFS}", namespace=NAMESPACE).stdout.split()
        assert seen == ["balancing"]
        assert node.exec(pod, "mkdir", f"/host{BPFFS}/tc", namespace=NAMESPACE, check=False).returncode == 1
        assert node.path(f"{BPFFS}/cilium/devices").is_dir()
    finally:
        node.run("rmdir", f"{BPFFS}/cilium/devices", f"{BPFFS}/cilium")


def test_the_nodes_bpffs_need_not_be_a_shared_mount(installation: Installation) -> None:
    installation.node.run("mount", "--make-private", BPFFS)
    try:
        replace_agent(installation)
        installation.wait_ready()
    finally:
        installation.node.run("mount", "--make-shared", BPFFS)


@pytest.mark.usefixtures("template_restored")
def test_pins_of_an_agent_that_saw_the_whole_bpffs_are_adopted(installation: Installation) -> None:
    patch = ("--type=strategic", f"--patch={json.dumps(WHOLE)}")
    installation.node.kubectl("patch", "daemonset", DAEMONSET, "-n", NAMESPACE, *patch)
    installation.wait_ready()
    former = links(installation)
    installation.node.kubectl("rollout", "undo", f"daemonset/{DAEMONSET}", "-n", NAMESPACE)
    installation.wait_ready()
    assert links(installation) == former != set()
    assert "adopting" in installation.logs()


def test_on_a_node_without_a_bpffs_an_event_says_so(installation: Installation) -> None:
    """The Event comes from the kubelet, which cannot make the directory on sysfs."""
    node = installation.node
    node.run("sh", "-ec", f"while mountpoint -q {BPFFS}; do umount --lazy {BPFFS}; done")
    try:
        replace_agent(installation)
        events = ("get", "events", "-n", NAMESPACE, "-o", "json")
        wait_until(
            lambda: f"mkdir {BPFFS}/balancing" in node.kubectl(*events).stdout,
            "an Event names the directory",
            60,
        )
    finally:
        node.run("mount", "-t", "bpf", "bpf", BPFFS)
    installation.wait_ready()
