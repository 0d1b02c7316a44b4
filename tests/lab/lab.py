"""Lab: a node with Pods, the agent on it, and a remote cluster that answers at the same virtual addresses.

The remote cluster stands for the normal way: it answers every call that is not redirected.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml

from bpf.cgroups.hierarchy import find_cgroup
from bpf.inspecting.views import view as installed_view
from bpf.lifecycle.bpffs import mount_bpffs
from bpf.lifecycle.detaching import detach
from bpf.maps.kernel_map import KernelMap
from bpf.maps.packing import ONLY_KEY
from tests.lab.worker import SLOWNESS

ROOT = Path(__file__).resolve().parents[2]
REMOTE = "remote"
VIP = "169.254.0.90"
CLUSTER_IP = "10.96.77.1"
CLUSTER_IP6 = "fd96::7701"
_DEFAULT_ROUTES = ("route add default via 10.77.0.200", "route add default via fd77::200")
"""To the remote cluster."""
VIPS = (VIP, CLUSTER_IP, "169.254.0.91", "169.254.0.92")
WAIT_SECONDS = 30.0
"""Much longer than anything takes, since a test may share its machine with a compiler."""
RIGHTS = ("setpriv", "--bounding-set=-all,+bpf,+net_admin")
"""Starts a command with only those capabilities that the agent has in its container. For root with all its
capabilities, the verifier would be less strict, and the programs faster."""
Manifest = dict[str, Any]
T = TypeVar("T")
_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000


def wait_until(holds: Callable[[], object], what: str | Callable[[], str], seconds: float = WAIT_SECONDS) -> None:
    """Polls a condition in another process, for which there is no event to await. On a slow machine it waits longer
    than `seconds`. Raises AssertionError with `what`."""
    seconds *= SLOWNESS
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            msg = f"not within {seconds:g} s: {what() if callable(what) else what}"
            raise AssertionError(msg)
        time.sleep(0.01 * SLOWNESS)


def in_netns(netns: str, function: Callable[[], T]) -> T:
    """Calls the function in a network namespace. A socket that it makes stays in that namespace."""

    def enter_and_call() -> T:
        with Path(f"/run/netns/{netns}").open("rb") as namespace:
            if _LIBC.setns(namespace.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        return function()

    # The thread ends afterwards, since only a thread of its own can be in another namespace than this process.
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(enter_and_call).result()


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class WorkerProcess:
    """A worker that the command starts somewhere. `do` calls a method of tests.lab.worker.Worker there."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        # It has a session of its own, so that Ctrl-C reaches only the laboratory, which then ends everything in order.
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def do(self, what: str, **arguments: object) -> dict[str, Any]:
        self.begin(what, **arguments)
        return self.end()

    def begin(self, what: str, **arguments: object) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        self._process.stdin.flush()

    def end(self) -> dict[str, Any]:
        assert self._process.stdout
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


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


class Agent:
    """The agent as users run it: `python run.py --config FILE`."""

    _ports = itertools.count(20000 + os.getpid() % 20000)

    def __init__(self, lab: Lab, config: dict[str, object]) -> None:
        self._lab = lab
        lab.agents.append(self)
        self.health, self.metrics = next(self._ports), next(self._ports)
        self.config = lab.folder / f"agent-{self.health}.yaml"
        sections: dict[str, Any] = {
            "node_name": "node",
            "source": {"kind": "directory", "directory": str(lab.manifests)},
            "datapath": {
                "cgroup": str(lab.cgroup),
                "bpffs": str(lab.bpffs),
                "lease_seconds": math.ceil(30 * SLOWNESS),  # the default, and longer than it takes to compile a build
            },
            "metrics": {"address": "127.0.0.1", "port": self.metrics},
            "health": {"address": "127.0.0.1", "port": self.health},
            "log": {"level": "debug"},
        }
        for key, value in config.items():
            section, _, name = key.partition("__")
            sections.setdefault(section, {})[name] = value
        self._bpffs = Path(sections["datapath"]["bpffs"])
        self.config.write_text(yaml.safe_dump(sections))
        self.log = lab.folder / f"agent-{self.health}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(
        self,
        *,
        ready: bool = True,
        program: tuple[str, ...] = ("run.py",),
        root: Path = ROOT,
        within: tuple[str, ...] = (),
    ) -> None:
        """Runs `program` from the checkout `root`. `within` is a command that starts it after further preparations."""
        with self.log.open("ab") as log:
            node = ("nsenter", f"--net=/run/netns/{self._lab.node}")
            command = [*node, *within, *RIGHTS, sys.executable, *program, "--config"]
            self.process = subprocess.Popen(
                [*command, str(self.config)],
                cwd=root,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if ready:
            try:
                wait_until(self._is_ready, "the agent is ready", 120)
            except AssertionError as error:
                raise AssertionError(f"{error}\n{self.log.read_text()}") from None

    def _is_ready(self) -> bool:
        assert self.process
        assert self.process.poll() is None, f"the agent ended, exit code {self.process.returncode}"
        return self.fetch("/readyz") == "ok\n"

    def fail(self, actor: str) -> None:
        """Makes an actor fail, if the agent was started as `tests.lab.failing_agent`."""
        assert self.process
        assert self.process.stdin
        self.process.stdin.write(f"{actor}\n".encode())
        self.process.stdin.flush()

    def fetch(self, path: str) -> str:
        """The body of the agent's answer, whatever its status is; "" when nobody answers. Asked from the node's
        namespace."""
        port = self.metrics if path == "/metrics" else self.health
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5 * SLOWNESS)
        try:
            in_netns(self._lab.node, connection.connect)
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            return ""
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.fetch("/status"))
        return found

    def states(self) -> dict[str, str]:
        """Policy -> state."""
        return {policy["name"]: policy["state"] for policy in self.status()["policies"]}

    def wait_states(self, states: dict[str, str]) -> None:
        """Waits until the agent reports these states, which it does a moment after the kernel's maps have changed."""
        wait_until(lambda: self.states() == states, f"the states of the policies are {states}")

    def restarts(self, actor: str) -> int | None:
        """How often the supervisor has restarted the actor. None while the agent doesn't say it: it doesn't answer, or
        its StatusReporter has just been restarted and knows of no actor yet."""
        status = json.loads(self.fetch("/status") or '{"actors": []}')
        return next((int(each["restarts"]) for each in status["actors"] if each["name"] == actor), None)

    def message(self, policy: str) -> str:
        return next(str(each["message"]) for each in self.status()["policies"] if each["name"] == policy)

    def metric(self, name: str) -> float:
        """Value of one line of /metrics, named with its labels."""
        return next(
            float(line.split()[-1]) for line in self.fetch("/metrics").splitlines() if line.startswith(name + " ")
        )

    def is_watched(self) -> bool:
        """Whether the programs record decisions. After the last watcher has ended, they stop at the next call."""
        watch = KernelMap(self._bpffs / self.status()["build"] / "maps" / "watch")
        row = watch.lookup(ONLY_KEY)
        watch.close()
        assert row
        return any(row[:8])

    def inspect(self, view: str) -> list[dict[str, Any]]:
        """What `run.py inspect` shows, without the start of a process, since tests ask for it again and again."""
        rows: list[Any] = installed_view(view, self._bpffs)
        return rows

    def command(self, *arguments: str, within: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        command = [*within, sys.executable, "run.py", *arguments, "--config", str(self.config)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    def terminate(self) -> int:
        """Stops the agent with SIGTERM. Returns its exit code."""
        assert self.process
        self.process.terminate()
        return self.process.wait(10 * SLOWNESS)

    def kill(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def end(self) -> None:
        """Kills the agent, and the loader if the agent was just starting one."""
        self.kill()
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                while True:  # until the process group is empty
                    os.killpg(self.process.pid, signal.SIGKILL)
                    time.sleep(0.01)


def uid_of(name: str) -> str:
    return f"uid-{name}"
