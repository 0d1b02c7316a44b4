"""A container that ends takes its Pod out of use at once, whatever the API says (P18)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.lab import REMOTE, Lab, Manifest, PodProcess, answerer, uid_of
from tests.lab.processes import wait_until

FIRST, SECOND = "a" * 64, "b" * 64
PLACES = {
    "cgroupfs": "kubepods/besteffort/pod{uid}/{id}",
    "containerd, systemd": "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid_}.slice/"
    "cri-containerd-{id}.scope",
    "CRI-O, cgroupfs": "kubepods/burstable/pod{uid}/crio-{id}",
    "CRI-O, systemd": "kubepods.slice/kubepods-pod{uid_}.slice/crio-{id}.scope",
}
OUT = "a container of it has ended"


class Container:
    """A container's cgroup with one process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True)
        self._process = subprocess.Popen(["sleep", "infinity"])
        self.enter(directory)

    def enter(self, directory: Path) -> None:
        (directory / "cgroup.procs").write_text(str(self._process.pid))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def remove(self) -> None:
        """Kills the process, and removes the cgroup, as a runtime does afterwards."""
        self.kill()
        if self.directory.exists():
            for each in sorted(self.directory.rglob("*/"), reverse=True):
                each.rmdir()
            self.directory.rmdir()


@contextmanager
def container(
    lab: Lab, pod: PodProcess, identifier: str = FIRST, place: str = PLACES["cgroupfs"]
) -> Iterator[Container]:
    uid = uid_of(pod.name)
    path = lab.cgroup / place.format(uid=uid, uid_=uid.replace("-", "_"), id=identifier)
    made = Container(path)
    try:
        yield made
    finally:
        made.remove()
        for each in (path.parent, path.parent.parent):
            if "kubepods" in each.name and not any(child.is_dir() for child in each.iterdir()):
                each.rmdir()


def running(pod: PodProcess, identifier: str = FIRST, *, key: str = "containerStatuses") -> Manifest:
    """The Pod's manifest: its status names a container."""
    found = manifests.pod(pod)
    found["status"][key] = [{"name": "dns", "containerID": f"containerd://{identifier}", "ready": True}]
    return found


def redirected(lab: Lab, agent: Agent, client: PodProcess, *pods: Manifest) -> None:
    lab.write("pods", *pods)
    lab.write("policies", manifests.policy("vip"))
    wait_until(lambda: agent.states() == {"vip": "Active"}, "active")
    assert answerer(client) != REMOTE


def out_of_use(agent: Agent, pod: PodProcess, why: str = OUT) -> None:
    wait_until(lambda: f"default/{pod.name} ({why})" in agent.message("vip"), "the Pod is out of use")


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_pod_whose_container_was_killed_is_out_of_use(
    lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess], place: str
) -> None:
    with container(lab, pods[0], place=place) as made:
        redirected(lab, agent, client, running(pods[0]))
        made.kill()
        out_of_use(agent, pods[0])
        agent.wait_states({"vip": "NoBackend"})
        assert answerer(client) == REMOTE


def test_other_pods_stay_in_use(lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess]) -> None:
    with container(lab, pods[0]) as made:
        redirected(lab, agent, client, running(pods[0]), manifests.pod(pods[1]))
        made.kill()
        out_of_use(agent, pods[0])
        agent.wait_states({"vip": "Active"})
        assert {answerer(client) for _ in range(8)} == {"pod1"}


def test_a_pod_comes_back_when_its_status_names_another_container(
    lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess]
) -> None:
    with container(lab, pods[0]) as first, container(lab, pods[0], SECOND) as second:
        redirected(lab, agent, client, running(pods[0]))
        first.kill()
        out_of_use(agent, pods[0])
        lab.write("pods", running(pods[0], SECOND))
        wait_until(lambda: agent.states() == {"vip": "Active"}, "active again")
        assert answerer(client) == "pod0"
        second.kill()
        out_of_use(agent, pods[0])


def test_an_agent_that_starts_while_a_container_is_dead_takes_its_pod_out_of_use(
    lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess]
) -> None:
    with container(lab, pods[0]) as ended, container(lab, pods[0], SECOND):  # the second is the Pod's sandbox
        redirected(lab, agent, client, running(pods[0]))
        agent.terminate()
        ended.remove()
        agent.start()
        out_of_use(agent, pods[0])
        assert answerer(client) == REMOTE


def test_a_process_in_a_cgroup_of_the_containers_own_keeps_it_alive(
    lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess]
) -> None:
    with container(lab, pods[0]) as made:
        (made.directory / "init").mkdir()
        made.enter(made.directory / "init")
        redirected(lab, agent, client, running(pods[0]), manifests.pod(pods[1]))
        made.kill()
        out_of_use(agent, pods[0])


@pytest.mark.parametrize("key", ["initContainerStatuses", "ephemeralContainerStatuses"])
def test_init_and_ephemeral_containers_do_not_count(
    lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess], key: str
) -> None:
    with container(lab, pods[0]) as counted, container(lab, pods[0], SECOND) as other:
        manifest = running(pods[0])
        manifest["status"][key] = [{"name": "other", "containerID": f"containerd://{SECOND}"}]
        redirected(lab, agent, client, manifest, manifests.pod(pods[1]))
        other.kill()
        counted.kill()  # the kernel reports this one after the other
        out_of_use(agent, pods[0])
    # Of the other one nothing was heard, or the Pod would have been out of use without `counted`.
    with container(lab, pods[0], SECOND) as other:
        redirected(lab, agent, client, running(pods[0], "c" * 64, key=key), manifests.pod(pods[1]))
        other.kill()
        lab.write("policies", manifests.policy("vip"), manifests.policy("later", ip="169.254.0.91"))
        wait_until(lambda: agent.states().get("later") == "Active", "decided again")
        assert "out of use" not in agent.message("vip")


def test_a_pod_whose_cgroup_is_removed_is_out_of_use(
    lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess]
) -> None:
    other = lab.process("short-lived", cgroup=f"kubepods/besteffort/pod{uid_of('short-lived')}/ctr", beside=pods[0])
    redirected(lab, agent, client, manifests.pod(other), manifests.pod(pods[1]))
    wait_until(lambda: "no cgroup" not in agent.message("vip"), "its cgroup was found")
    other.kill()
    assert other.cgroup
    other.cgroup.rmdir()
    other.cgroup.parent.rmdir()
    out_of_use(agent, other, "its cgroup is gone")
