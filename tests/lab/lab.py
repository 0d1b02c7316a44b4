"""Lab: a node with Pods, the agent on it, and a remote cluster that answers at the same virtual addresses.

The remote cluster stands for the normal way: it answers every call that is not redirected.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import yaml

from bpf.cgroups.hierarchy import find_cgroup
from bpf.lifecycle.bpffs import mount_bpffs
from bpf.lifecycle.detaching import detach
from tests.lab.agent import Agent
from tests.lab.processes import WorkerProcess, run, wait_until

REMOTE = "remote"
VIP = "169.254.0.90"
CLUSTER_IP = "10.96.77.1"
CLUSTER_IP6 = "fd96::7701"
_DEFAULT_ROUTES = ("route add default via 10.77.0.200", "route add default via fd77::200")
"""To the remote cluster."""
VIPS = (VIP, CLUSTER_IP, "169.254.0.91", "169.254.0.92")
Manifest = dict[str, Any]


class PodProcess(WorkerProcess):
    """A worker in a network namespace and a cgroup."""

    def __init__(self, name: str, netns: str, cgroup: Path | None, address: str, address6: str) -> None:
        self.netns, self.address, self.address6, self.cgroup = netns, address, address6, cgroup
        # A worker needs only the standard library. Without `site` (-S) it starts in half of the time.
        command = ["nsenter", f"--net=/run/netns/{netns}", sys.executable, "-S", "-m", "tests.lab.worker", name]
        super().__init__(name, [*command, str(cgroup)] if cgroup else command)


def answerer(process: PodProcess, address: str = VIP) -> str:
    """Who answers the process's datagram to port 53 of the address: the name of a Pod, or REMOTE."""
    return str(process.do("udp", address=address, port=53)["who"])


class Lab:
    """Context manager. `node` is the name of the node's network namespace, in which the agent runs."""

    def __init__(self) -> None:
        self.prefix = f"lr-{os.getpid()}"
        self.cgroup = find_cgroup("auto") / self.prefix
        self.bpffs = Path("/sys/fs/bpf") / self.prefix
        self.folder = Path(tempfile.mkdtemp(prefix="localredirect-"))
        self.manifests = self.folder / "manifests"
        self.node = f"{self.prefix}-node"
        self._hosts = itertools.count(10)
        self._netns: list[str] = []
        self._pods: list[PodProcess] = []
        self.agents: list[Agent] = []

    def __enter__(self) -> Self:
        signal.signal(signal.SIGTERM, _interrupt)  # clean up as after Ctrl-C
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _build(self) -> None:
        mount_bpffs()  # systemd does this on a node; the agent has no right to mount
        self.manifests.mkdir()
        (self.cgroup / "kubepods").mkdir(parents=True)
        self._add_netns(self.node)
        # Without an address of its own, the bridge's address changes whenever a Pod comes or goes, and ARP is slow to
        # notice.
        self._ip(
            self.node,
            "link add br0 address 02:00:00:00:00:01 type bridge",
            "addr add 10.77.0.1/24 dev br0",
            "addr add fd77::1/64 dev br0 nodad",
            "link set br0 up",
        )
        self.remote = self.pod(REMOTE, pod=False, host=200)
        self._ip(
            f"{self.prefix}-{REMOTE}",
            *(f"addr add {vip}/32 dev lo" for vip in VIPS),
            f"addr add {CLUSTER_IP6}/128 dev lo nodad",
        )
        self._ip(self.node, *_DEFAULT_ROUTES)

    def _add_netns(self, name: str) -> None:
        run("ip", "netns", "add", name)
        self._netns.append(name)
        self._ip(name, "link set lo up")

    @staticmethod
    def _ip(netns: str, *commands: str) -> None:
        """Runs commands of `ip` in one process, since the start of each takes half a second on an emulated machine."""
        text = "\n".join(commands)
        subprocess.run(["ip", "-n", netns, "-batch", "-"], input=text, check=True, capture_output=True, text=True)

    def pod(self, name: str, *, pod: bool = True, host: int | None = None) -> PodProcess:
        """A worker in a new network namespace. If it stands for a Pod, it is in a cgroup as the kubelet makes it."""
        host = host or next(self._hosts)
        netns = f"{self.prefix}-{name}"
        self._add_netns(netns)
        self._ip(
            self.node,
            f"link add v{host} type veth peer name eth0 netns {netns}",
            f"link set v{host} master br0 up",
        )
        self._ip(
            netns,
            f"addr add 10.77.0.{host}/24 dev eth0",
            f"addr add fd77::{host}/64 dev eth0 nodad",
            "link set eth0 up",
            *(_DEFAULT_ROUTES if name != REMOTE else ()),
        )
        cgroup = None
        if pod:
            cgroup = self.cgroup / "kubepods" / "besteffort" / f"pod{uid_of(name)}" / "ctr"
            cgroup.mkdir(parents=True)
        made = PodProcess(name, netns, cgroup, f"10.77.0.{host}", f"fd77::{host}")
        self._pods.append(made)
        return made

    def host_process(self, name: str) -> PodProcess:
        """A process of the node itself."""
        return self.process(name, cgroup=name)

    def process(self, name: str, *, cgroup: str, beside: PodProcess | None = None) -> PodProcess:
        """Another process in the network namespace of a Pod, or of the node, and in a cgroup below the laboratory's."""
        path = self.cgroup / cgroup
        path.mkdir(parents=True, exist_ok=True)
        if beside:
            made = PodProcess(name, beside.netns, path, beside.address, beside.address6)
        else:
            made = PodProcess(name, self.node, path, "10.77.0.1", "fd77::1")
        self._pods.append(made)
        return made

    def write(self, name: str, *objects: Manifest) -> None:
        """Replaces a file of manifests in one step."""
        self.prepare(*objects)
        self.commit(name)

    def prepare(self, *objects: Manifest) -> None:
        (self.folder / "new").write_text(yaml.safe_dump_all(objects))

    def commit(self, name: str) -> None:
        (self.folder / "new").rename(self.manifests / f"{name}.yaml")

    def remove(self, name: str) -> None:
        (self.manifests / f"{name}.yaml").unlink()

    def agent(self, **config: object) -> Agent:
        """Starts an agent, and returns it once it is ready. `datapath__cgroup=...` sets `datapath.cgroup`."""
        made = Agent(self, config)
        made.start()
        return made

    @contextlib.contextmanager
    def running_agent(self, **config: object) -> Iterator[Agent]:
        """An agent that is stopped in the end, and whose programs and maps are removed then."""
        made = Agent(self, config)
        try:
            made.start()
            yield made
        finally:
            made.terminate()
            made.command("detach")

    def close(self) -> None:
        signals = {each: signal.signal(each, signal.SIG_IGN) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._remove_all()
        finally:
            for each, handler in signals.items():
                signal.signal(each, handler if each == signal.SIGINT else signal.SIG_DFL)

    def _remove_all(self) -> None:
        for agent in self.agents:
            agent.end()
        for pod in self._pods:
            pod.kill()
        if self.bpffs.exists():
            detach(self.bpffs)
        for netns in reversed(self._netns):
            subprocess.run(["ip", "netns", "del", netns], check=False, capture_output=True)
        remove_cgroups(self.cgroup)
        shutil.rmtree(self.folder, ignore_errors=True)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def remove_cgroups(top: Path) -> None:
    """Removes a cgroup and all below it. A process that has just been killed may still be in one, so it waits."""
    for directory, _, _ in os.walk(top, topdown=False):
        wait_until(lambda directory=directory: _removed(Path(directory)), f"{directory} is empty")  # type: ignore[misc]


def _removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except OSError:
        return False
    return True


def uid_of(name: str) -> str:
    return f"uid-{name}"
