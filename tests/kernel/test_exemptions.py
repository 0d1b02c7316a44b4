"""Processes that are not redirected, wherever the kubelet puts a Pod's processes (P12, P14)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.lab import REMOTE, Lab, Manifest, PodProcess, answerer, uid_of
from tests.lab.processes import wait_until

SYSTEMD = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/cri-containerd-c0ffee.scope"
CGROUPS = {
    "cgroupfs, guaranteed": "kubepods/pod{}/c0ffee",
    "cgroupfs, burstable": "kubepods/burstable/pod{}/c0ffee",
    "cgroupfs, a cgroup of the container's own": "kubepods/besteffort/pod{}/c0ffee/init/worker",
    "systemd": SYSTEMD,
    "systemd, guaranteed": "kubepods.slice/kubepods-pod{}.slice/cri-containerd-c0ffee.scope",
    "cgroupfs, cgroupRoot": "pods/kubepods/burstable/pod{}/c0ffee",
    "systemd, cgroupRoot": "pods.slice/pods-kubepods.slice/pods-kubepods-pod{}.slice/cri-containerd-c0ffee.scope",
    "within another Pod": "kubepods/pod6f9b0c1e-1111-2222-3333-444455556666/node/kubepods/burstable/pod{}/c0ffee",
    "a node that is itself a container": "kubelet.slice/kubepods/burstable/pod{}/c0ffee",
}


def put_in_force(lab: Lab, agent: Agent, *pods: Manifest, **config: Any) -> None:
    """Puts a policy over these Pods in force, and waits until the agent knows their cgroups."""
    lab.write("pods", *pods)
    lab.write("policies", manifests.policy("vip", **config))
    wait_until(lambda: agent.states() == {"vip": "Active"}, "active")
    wait_until(lambda: "no cgroup" not in agent.message("vip"), "the Pods' cgroups are found")


@pytest.mark.parametrize("place", CGROUPS.values(), ids=CGROUPS)
def test_a_backend_is_known_by_its_cgroup(lab: Lab, agent: Agent, pods: list[PodProcess], place: str) -> None:
    name = f"placed{list(CGROUPS.values()).index(place)}"
    uid = uid_of(name).replace("-", "_") if ".slice/" in place and "kubelet" not in place else uid_of(name)
    process = lab.process(name, cgroup=place.format(uid), beside=pods[0])
    put_in_force(lab, agent, manifests.pod(process))
    assert answerer(process) == REMOTE
    assert answerer(pods[1]) == "pod0"


def test_a_static_pod_is_known_by_its_config_hash(lab: Lab, agent: Agent, pods: list[PodProcess]) -> None:
    process = lab.process("static", cgroup="kubepods/burstable/podd0d0cafe/ctr", beside=pods[0])
    manifest = manifests.pod(process)
    manifest["metadata"]["annotations"] = {"kubernetes.io/config.hash": "d0d0cafe"}
    put_in_force(lab, agent, manifest)
    assert answerer(process) == REMOTE
    assert answerer(pods[1]) == "pod0"


@pytest.mark.parametrize("event", [False, True], ids=["without an event", "with an event"])
def test_a_static_pod_that_is_moved_away_and_back_is_not_redirected_to_itself(
    lab: Lab, agent: Agent, pods: list[PodProcess], event: bool
) -> None:
    """Its new directory has the same path and another id. The API says nothing, or reports a new mirror Pod."""
    config_hash = f"{int(event)}123456789abcdef0123456789abcdef"
    directory = lab.cgroup / "kubepods" / "burstable" / f"pod{config_hash}"
    directory.mkdir()
    manifest = manifests.pod(pods[0])
    manifest["metadata"] |= {"name": "static", "annotations": {"kubernetes.io/config.hash": config_hash}}
    manifest["metadata"]["uid"] = "first-mirror"
    put_in_force(lab, agent, manifest)
    directory.rmdir()
    if event:
        lab.write("pods")
        manifest["metadata"]["uid"] = "second-mirror"
        lab.write("pods", manifest)
    wait_until(lambda: "default/static" in agent.message("vip"), "it is named while it has no cgroup")
    again = lab.process(f"again{event}", cgroup=f"{directory.relative_to(lab.cgroup)}/ctr", beside=pods[0])
    wait_until(lambda: answerer(again) == REMOTE, "its new cgroup is known")
    wait_until(lambda: "default/static" not in agent.message("vip"), "the message no longer names it")
    assert answerer(pods[1]) == "pod0"


def test_a_pods_cgroup_that_is_made_again_between_two_checks_is_found(
    lab: Lab, agent: Agent, pods: list[PodProcess]
) -> None:
    place = f"kubepods/pod{uid_of('again')}"
    (lab.cgroup / place).mkdir()
    manifest = manifests.pod(pods[0])
    manifest["metadata"] |= {"name": "again", "uid": uid_of("again")}
    put_in_force(lab, agent, manifest)
    (lab.cgroup / place).rmdir()
    process = lab.process("again", cgroup=f"{place}/ctr", beside=pods[0])
    wait_until(lambda: answerer(pods[1]) == "pod0", "it is in use again")
    wait_until(lambda: answerer(process) == REMOTE, "its new cgroup is known")


@pytest.mark.parametrize("change", [{"ready": False}, {"terminating": True}], ids=["not ready", "terminating"])
def test_a_selected_pod_is_not_redirected_to_its_sibling_whatever_its_state(
    lab: Lab, agent: Agent, pods: list[PodProcess], change: dict[str, bool]
) -> None:
    put_in_force(lab, agent, manifests.pod(pods[0]), manifests.pod(pods[1], **change))  # type: ignore[arg-type]
    assert answerer(pods[1]) == REMOTE
    assert answerer(pods[2]) == "pod0"


def test_a_pod_that_is_no_longer_selected_is_a_client_like_others(
    lab: Lab, agent: Agent, pods: list[PodProcess]
) -> None:
    put_in_force(lab, agent, manifests.pod(pods[0]), manifests.pod(pods[1]))
    assert answerer(pods[1]) == REMOTE
    lab.write("pods", manifests.pod(pods[0]), manifests.pod(pods[1], app="other"))
    wait_until(lambda: answerer(pods[1]) == "pod0", "it is redirected")


def test_a_pod_without_a_cgroup_is_named_until_it_has_one(lab: Lab, agent: Agent, pods: list[PodProcess]) -> None:
    late = lab.process("late", cgroup="elsewhere", beside=pods[0])
    lab.write("pods", manifests.pod(late))
    lab.write("policies", manifests.policy("vip"))
    wait_until(lambda: "default/late" in agent.message("vip"), "the Pod is named")
    agent.wait_states({"vip": "Active"})
    lab.process("late-container", cgroup=f"kubepods/pod{uid_of('late')}/ctr", beside=pods[0])
    wait_until(lambda: "default/late" not in agent.message("vip"), "its cgroup was found")


@pytest.fixture
def host_pod(lab: Lab) -> PodProcess:
    """A host-network Pod: it has the node's network namespace and address, and a Pod's cgroup."""
    name = "hostpod"
    process = lab.process(name, cgroup=f"kubepods/burstable/pod{uid_of(name)}/ctr")
    process.do("serve", address=process.address, port=53, protocol="UDP")
    return process


def test_a_host_network_pod_backs_a_policy_and_is_not_redirected_to_itself(
    lab: Lab, agent: Agent, host_pod: PodProcess, client: PodProcess
) -> None:
    host = lab.host_process("other-host-process")
    put_in_force(lab, agent, manifests.pod(host_pod, host_network=True))
    assert answerer(client) == "hostpod"
    assert answerer(host_pod) == REMOTE
    assert answerer(host) == "hostpod"
    (row,) = agent.inspect("policies")
    assert (row["redirects"], row["passes"]["from_backend"]) == (2, 1)


def test_without_redirects_from_the_host_pods_are_still_redirected(
    lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess]
) -> None:
    host = lab.host_process("a-host-process")
    put_in_force(lab, agent, manifests.pod(pods[0]), redirectFromHost=False)
    assert answerer(host) == REMOTE
    assert answerer(client) == "pod0"
