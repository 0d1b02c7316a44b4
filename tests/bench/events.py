"""An agent with 1,000 policies and 250 Pods: from an event to the kernel, start, memory, and CPU while idle."""

from __future__ import annotations

import statistics
import subprocess
import time
from dataclasses import dataclass
from ipaddress import ip_address

from bpf.maps.packing import pack_frontend
from bpf.maps.pinned_maps import PinnedMaps
from config.domain.addresses import Frontend, Protocol
from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.lab import Lab, Manifest, uid_of
from tests.lab.processes import wait_until
from tests.process_usage import cpu_seconds, resident_megabytes

POLICIES = 1000
PODS = 250
FLIPS = 300
KILLS = 50
SETTLE_SECONDS = 0.1
CHANGES = 10_000
IDLE_SECONDS = 10


@dataclass(frozen=True)
class FakePod:
    """A Pod without processes: an address and a name."""

    name: str
    address: str
    address6: str


def pod_of(number: int) -> FakePod:
    return FakePod(f"p{number}", f"10.78.{number // 250}.{number % 250 + 1}", f"fd78::{number + 1:x}")


def vip(number: int) -> str:
    return f"10.200.{number // 250}.{number % 250 + 1}"


def manifest(number: int, *, ready: bool) -> Manifest:
    return manifests.pod(pod_of(number), app=f"app{number}", ready=ready)  # type: ignore[arg-type]


def populate(lab: Lab) -> None:
    for number in range(PODS):
        (lab.cgroup / "kubepods" / f"pod{uid_of(pod_of(number).name)}").mkdir()
        lab.write(f"pod{number}", manifest(number, ready=True))
    for number in range(POLICIES):
        lab.write(f"policy{number}", manifests.policy(f"policy{number}", ip=vip(number), app=f"app{number % PODS}"))


def depopulate(lab: Lab) -> None:
    for path in lab.manifests.iterdir():
        path.unlink()
    for number in range(PODS):
        (lab.cgroup / "kubepods" / f"pod{uid_of(pod_of(number).name)}").rmdir()


def measure(lab: Lab) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    agent = lab.agent(log__level="warning")
    rows.append(("resident memory at start", resident(agent.process)))
    populate(lab)
    maps = PinnedMaps(lab.bpffs / agent.status()["build"] / "maps")
    wait_until(lambda: sum(1 for _ in maps["frontends"].items()) == POLICIES, "all policies are installed", 60)
    rows.append((f"resident memory at {POLICIES} policies", resident(agent.process)))
    rows.append(("event to kernel", _event_to_kernel(lab, maps)))
    rows.append(("container killed to kernel", _container_to_kernel(lab, maps)))
    rows.append(("CPU while idle", _idle(agent)))
    _change(lab, maps)
    rows.append((f"resident memory after {CHANGES} changes", resident(agent.process)))
    agent.terminate()
    maps.close()
    rows.append(("restart, pins adopted", _start(agent)))
    agent.terminate()
    agent.command("detach")
    rows.append(("restart, compiled and loaded", _start(agent)))
    agent.terminate()
    agent.command("detach")
    depopulate(lab)
    return rows


def _event_to_kernel(lab: Lab, maps: PinnedMaps) -> str:
    """The time from the rename of a Pod's file until the row of its frontend comes or goes in the kernel, seen from
    outside."""
    key = pack_frontend(Frontend(ip_address(vip(7)), 53, Protocol.UDP))
    times = []
    for flip in range(FLIPS):
        ready = flip % 2 == 1
        lab.prepare(manifest(7, ready=ready))
        began = time.perf_counter()
        lab.commit("pod7")
        while (maps["frontends"].lookup(key) is not None) != ready:
            time.sleep(0)
        times.append((time.perf_counter() - began) * 1000)
    cuts = statistics.quantiles(times, n=100)
    return f"p50 {cuts[49]:.2f} ms, p99 {cuts[98]:.2f} ms ({POLICIES} policies, {PODS} Pods)"


def _container_to_kernel(lab: Lab, maps: PinnedMaps) -> str:
    """The time from kill -9 of the only process of a backend's container until the row of its frontend is gone from the
    kernel (P18)."""
    key = pack_frontend(Frontend(ip_address(vip(7)), 53, Protocol.UDP))
    times = []
    for kill in range(KILLS):
        identifier = f"{kill:064x}"
        directory = lab.cgroup / "kubepods" / f"pod{uid_of(pod_of(7).name)}" / identifier
        directory.mkdir()
        process = subprocess.Popen(["sleep", "infinity"])
        (directory / "cgroup.procs").write_text(str(process.pid))
        pod = manifest(7, ready=True)
        pod["status"]["containerStatuses"] = [{"name": "main", "containerID": f"containerd://{identifier}"}]
        lab.write("pod7", pod)
        wait_until(lambda: maps["frontends"].lookup(key) is not None, "the container's Pod is in use")
        time.sleep(SETTLE_SECONDS)  # the watch of the new container may come after the row
        began = time.perf_counter()
        process.kill()
        while maps["frontends"].lookup(key) is not None:
            time.sleep(0)
        times.append((time.perf_counter() - began) * 1000)
        process.wait()
        directory.rmdir()
    lab.write("pod7", manifest(7, ready=True))
    return f"p50 {statistics.median(times):.1f} ms, at most {max(times):.1f} ms of {KILLS} kills"


def _change(lab: Lab, maps: PinnedMaps) -> None:
    for number in range(CHANGES):
        lab.write(f"pod{number % PODS}", manifest(number % PODS, ready=(number // PODS) % 2 == 1))
    for number in range(PODS):
        lab.write(f"pod{number}", manifest(number, ready=True))
    wait_until(lambda: sum(1 for _ in maps["frontends"].items()) == POLICIES, "all changes are installed", 120)


def _idle(agent: Agent) -> str:
    assert agent.process
    before = cpu_seconds(agent.process.pid)
    time.sleep(IDLE_SECONDS)  # the measurement itself
    return f"{(cpu_seconds(agent.process.pid) - before) / IDLE_SECONDS:.2%} of one core"


def resident(process: subprocess.Popen[bytes] | None) -> str:
    assert process
    return f"{resident_megabytes(process.pid):.0f} MB"


def _start(agent: Agent) -> str:
    began = time.perf_counter()
    agent.start()
    return f"ready after {time.perf_counter() - began:.2f} s, {POLICIES} policies read"


def many_frontends(lab: Lab) -> list[tuple[str, str]]:
    """100 policies of 100 ports each, from nothing."""
    lab.write("pod0", manifest(0, ready=True))
    for number in range(100):
        ports = tuple((1000 + port, "UDP") for port in range(100))
        lab.write(f"policy{number}", manifests.policy(f"policy{number}", ip=vip(number), app="app0", ports=ports))
    agent = lab.agent(log__level="warning")
    wait_until(lambda: len(agent.inspect("policies")) == 100, "all are installed", 60)
    seconds = agent.metric("localredirect_apply_seconds_sum")
    agent.terminate()
    agent.command("detach")
    for path in lab.manifests.iterdir():
        path.unlink()
    return [("10,000 frontends from nothing", f"{seconds:.2f} s from synced to the kernel")]
