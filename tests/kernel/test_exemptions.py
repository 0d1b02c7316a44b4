"""Who is not redirected, wherever the kubelet puts its Pods' processes (P12, P14)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab import manifests
from tests.lab.lab import REMOTE, VIP, Agent, Lab, Manifest, PodProcess, uid_of, wait_until

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


@pytest.fixture(scope="module")
def agent(lab: Lab) -> Iterator[Agent]:
    made = lab.agent()
    yield made
    made.terminate()
    made.command("detach")


def in_force(lab: Lab, agent: Agent, *pods: Manifest, **config: Any) -> None:
    """A policy over these Pods is active, and knows their cgroups."""
    lab.write("pods", *pods)
    lab.write("policies", manifests.policy("vip", **config))
    wait_until(lambda: agent.states() == {"vip": "Active"}, "active")
    wait_until(lambda: "no cgroup" not in agent.message("vip"), "the Pods' cgroups are found")


def asks(process: PodProcess) -> str:
    return str(process.do("udp", address=VIP, port=53)["who"])


@pytest.mark.parametrize("place", CGROUPS.values(), ids=CGROUPS)
def test_a_backend_is_known_by_its_cgroup(lab: Lab, agent: Agent, pods: list[PodProcess], place: str) -> None:
    name = f"placed{list(CGROUPS.values()).index(place)}"
    uid = uid_of(name).replace("-", "_") if ".slice/" in place and "kubelet" not in place else uid_of(name)
    process = lab.process(name, cgroup=place.format(uid), beside=pods[0])
    in_force(lab, agent, manifests.pod(process))
    assert asks(process) == REMOTE
    assert asks(pods[1]) == "pod0"


def test_a_static_pod_is_known_by_its_config_hash(lab: Lab, agent: Agent, pods: list[PodProcess]) -> None:
    process = lab.process("static", cgroup="kubepods/burstable/podd0d0cafe/ctr", beside=pods[0])
    manifest = manifests.pod(process)
    manifest["metadata"]["annotations"] = {"kubernetes.io/config.hash": "d0d0cafe"}
    in_force(lab, agent, manifest)
    assert asks(process) == REMOTE
    assert asks(pods[1]) == "pod0"


@pytest.mark.parametrize("told", [False, True], ids=["without an event", "with an event"])
def test_a_static_pod_that_is_moved_away_and_back_is_not_redirected_to_itself(
    lab: Lab, agent: Agent, pods: list[PodProcess], told: bool
) -> None:
    """Its directory has the same path, and another id. The API says nothing, or that there is a new mirror Pod."""
    config_hash = f"{int(told)}123456789abcdef0123456789abcdef"
    directory = lab.cgroup / "kubepods" / "burstable" / f"pod{config_hash}"
    directory.mkdir()
    manifest = manifests.pod(pods[0])
    manifest["metadata"] |= {"name": "static", "annotations": {"kubernetes.io/config.hash": config_hash}}
    manifest["metadata"]["uid"] = "first-mirror"
    in_force(lab, agent, manifest)
    directory.rmdir()
    if told:
        lab.write("pods")
        manifest["metadata"]["uid"] = "second-mirror"
        lab.write("pods", manifest)
    wait_until(lambda: "default/static" in agent.message("vip"), "it is named while it has no cgroup")
    again = lab.process(f"again{told}", cgroup=f"{directory.relative_to(lab.cgroup)}/ctr", beside=pods[0])
    wait_until(lambda: asks(again) == REMOTE, "its new cgroup is known")
    assert "default/static" not in agent.message("vip")
    assert asks(pods[1]) == "pod0"


def test_a_pods_cgroup_that_is_made_again_between_two_looks_is_known(
    lab: Lab, agent: Agent, pods: list[PodProcess]
) -> None:
    place = f"kubepods/pod{uid_of('again')}"
    (lab.cgroup / place).mkdir()
    manifest = manifests.pod(pods[0])
    manifest["metadata"] |= {"name": "again", "uid": uid_of("again")}
    in_force(lab, agent, manifest)
    (lab.cgroup / place).rmdir()
    process = lab.process("again", cgroup=f"{place}/ctr", beside=pods[0])
    wait_until(lambda: asks(process) == REMOTE, "its new cgroup is known")


@pytest.mark.parametrize("change", [{"ready": False}, {"terminating": True}], ids=["not ready", "terminating"])
def test_a_selected_pod_is_not_redirected_to_its_sibling_whatever_its_state(
    lab: Lab, agent: Agent, pods: list[PodProcess], change: dict[str, bool]
) -> None:
    in_force(lab, agent, manifests.pod(pods[0]), manifests.pod(pods[1], **change))  # type: ignore[arg-type]
    assert asks(pods[1]) == REMOTE
    assert asks(pods[2]) == "pod0"


def test_a_pod_that_is_selected_no_longer_is_a_client_like_others(
    lab: Lab, agent: Agent, pods: list[PodProcess]
) -> None:
    in_force(lab, agent, manifests.pod(pods[0]), manifests.pod(pods[1]))
    assert asks(pods[1]) == REMOTE
    lab.write("pods", manifests.pod(pods[0]), manifests.pod(pods[1], app="other"))
    wait_until(lambda: asks(pods[1]) == "pod0", "it is redirected")


def test_a_pod_without_a_cgroup_is_named_until_it_has_one(lab: Lab, agent: Agent, pods: list[PodProcess]) -> None:
    late = lab.process("late", cgroup="elsewhere", beside=pods[0])
    lab.write("pods", manifests.pod(late))
    lab.write("policies", manifests.policy("vip"))
    wait_until(lambda: "default/late" in agent.message("vip"), "the Pod is named")
    assert agent.states() == {"vip": "Active"}
    lab.process("late-container", cgroup=f"kubepods/pod{uid_of('late')}/ctr", beside=pods[0])
    wait_until(lambda: "default/late" not in agent.message("vip"), "its cgroup was found")


@pytest.fixture
def host_pod(lab: Lab) -> PodProcess:
    """A Pod of the host network: the node's namespace and address, a Pod's cgroup."""
    name = "hostpod"
    process = lab.process(name, cgroup=f"kubepods/burstable/pod{uid_of(name)}/ctr")
    process.do("serve", address=process.address, port=53, protocol="UDP")
    return process


def test_a_host_network_pod_backs_a_policy_and_is_not_redirected_to_itself(
    lab: Lab, agent: Agent, host_pod: PodProcess, client: PodProcess
) -> None:
    host = lab.host_process("other-host-process")
    in_force(lab, agent, manifests.pod(host_pod, host_network=True))
    assert asks(client) == "hostpod"
    assert asks(host_pod) == REMOTE
    assert asks(host) == "hostpod"
    (row,) = agent.inspect("policies")
    assert (row["redirects"], row["passes"]["from_backend"]) == (2, 1)


def test_what_is_left_to_the_host_is_told_apart_from_pods(
    lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess]
) -> None:
    host = lab.host_process("left-alone")
    in_force(lab, agent, manifests.pod(pods[0]), redirectFromHost=False)
    assert asks(host) == REMOTE
    assert asks(client) == "pod0"
