"""Nanoseconds per run of the programs (kernel.bpf_stats_enabled), compared with an empty program on the same cgroup,
and with the least that a redirect can cost (tests.bench.minimal).

Measured twice: loaded with only CAP_BPF and CAP_NET_ADMIN, as in the container, and with all of root's rights, for
which the verifier leaves out its barriers. Each round measures every case, so that a drift of the machine affects all
of them alike.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from unittest.mock import patch

from bpf import libbpf
from bpf.build import HOOKS, KERNEL_TREE
from config.domain.addresses import Endpoint, Frontend, Protocol
from tests.bench import minimal
from tests.bench.events import FakePod
from tests.lab import agent as lab_agent
from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.lab import VIP, Lab, PodProcess
from tests.lab.processes import ROOT, wait_until

CALLS = 50_000
FRESH_CALLS = 10_000
ROUNDS = 9
_STATS = Path("/proc/sys/kernel/bpf_stats_enabled")
_EMPTY = "#include <uapi/linux/bpf.h>\nint empty(struct bpf_sock_addr *ctx) { return 1; }\n"
_ONE, _MANY, _LIMITED, _MINIMAL = "10.200.9.1", "10.200.9.16", "10.200.9.2", "10.200.9.3"
"""Frontends: with affinity and 1 or 16 backends, with a limit, and the minimal program's own."""
_BACKENDS = 16


@dataclass(frozen=True, slots=True)
class Case:
    hook: str
    what: str
    address: str = VIP
    port: int = 53
    fresh: bool = False
    """Each call is on a new socket."""
    clients: int = 1
    """How many clients call at the same time."""

    def run(self, clients: Sequence[PodProcess]) -> None:
        """Sends or connects without awaiting an answer."""
        calls = FRESH_CALLS if self.fresh else CALLS
        more: dict[str, object] = {"fresh": self.fresh} if self.hook == "connect4" else {"until": 0.0}
        order = "connects" if self.hook == "connect4" else "sends"
        for client in clients[: self.clients]:
            client.begin(order, address=self.address, port=self.port, calls=calls, **more)
        for client in clients[: self.clients]:
            client.end()


def _cases(hook: str) -> list[Case]:
    return [
        Case(hook, "a port without frontends", port=9999),
        Case(hook, "a frontend's port, another address", address="169.254.0.92"),
        Case(hook, "a hit, in the minimal program", address=_MINIMAL),
        Case(hook, "a hit"),
        Case(hook, "a hit, two clients at once", clients=2),
        Case(hook, "a hit with a limit", address=_LIMITED),
        Case(hook, "a hit with a limit, two clients at once", address=_LIMITED, clients=2),
    ]


_CASES = [
    *_cases("sendmsg4"),
    *_cases("connect4"),
    Case("connect4", "a hit on a new socket, in the minimal program", address=_MINIMAL, fresh=True),
    Case("connect4", "a hit on a new socket", fresh=True),
    Case("connect4", "a hit with affinity, 1 backend", address=_ONE),
    Case("connect4", "a hit with affinity, 16 backends", address=_MANY),
    Case("connect4", "a hit with affinity on a new socket, 1 backend", address=_ONE, fresh=True),
    Case("connect4", "a hit with affinity on a new socket, 16 backends", address=_MANY, fresh=True),
]
_WATCHED = [Case(hook, "a hit while run.py monitor runs") for hook in ("sendmsg4", "connect4")]


@contextmanager
def statistics() -> Iterator[None]:
    """The kernel counts the runs of programs, and their time."""
    former = _STATS.read_text()
    _STATS.write_text("1")
    try:
        yield
    finally:
        _STATS.write_text(former)


@contextmanager
def empty_programs(cgroup: Path) -> Iterator[dict[str, int]]:
    """Attaches empty programs. Yields hook -> descriptor of its program."""
    os.environ["BCC_KERNEL_SOURCE"] = str(KERNEL_TREE)
    from bcc import BPF  # noqa: PLC0415

    compiled = BPF(text=_EMPTY)
    programs = {}
    for hook in ("connect4", "sendmsg4"):
        programs[hook] = os.dup(compiled.load_func(b"empty", BPF.CGROUP_SOCK_ADDR, attach_type=HOOKS[hook]).fd)
        compiled.funcs.clear()  # so that it is loaded again, for another attach type
    with _attached(cgroup, programs):
        yield programs


@contextmanager
def minimal_programs(lab: Lab, backend: PodProcess) -> Iterator[dict[str, int]]:
    """Attaches the minimal program, loaded with the rights that the laboratory's agents have."""
    directory = lab.bpffs.with_name(f"{lab.prefix}-minimal")
    directory.mkdir()
    try:
        command = [*lab_agent.RIGHTS, sys.executable, "-m", "tests.bench.minimal", str(directory)]
        subprocess.run(command, cwd=ROOT, check=True)
        frontend = Frontend(ip_address(_MINIMAL), 53, Protocol.UDP)
        minimal.install(directory, frontend, Endpoint(ip_address(backend.address), 53))
        programs = {hook: libbpf.open_pin(directory / hook) for hook in minimal.PROGRAMS}
        with _attached(lab.cgroup, programs):
            yield programs
    finally:
        shutil.rmtree(directory)


@contextmanager
def _attached(cgroup: Path, programs: Mapping[str, int]) -> Iterator[None]:
    """Attaches the programs. In the end it detaches them and closes their descriptors."""
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    links = [libbpf.link_create(program, directory, HOOKS[hook], 0) for hook, program in programs.items()]
    try:
        yield
    finally:
        for descriptor in (*links, *programs.values(), directory):
            os.close(descriptor)


@contextmanager
def _watched(lab: Lab, agent: Agent) -> Iterator[None]:
    """Runs `run.py monitor`."""
    node = ("nsenter", f"--net=/run/netns/{lab.node}", *lab_agent.RIGHTS)
    command = [*node, sys.executable, "run.py", "monitor", "--config", str(agent.config)]
    monitor = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        wait_until(agent.is_watched, "the monitor watches")
        yield
    finally:
        monitor.kill()
        monitor.wait()


def _counts(program: int) -> tuple[int, int]:
    """run_time_ns and run_cnt of struct bpf_prog_info."""
    time_ns, runs = struct.unpack_from("=QQ", libbpf.info(program, 208), 192)
    return time_ns, runs


def _followed(program: int) -> int:
    """verified_insns of struct bpf_prog_info. The verifier gives up at a million."""
    return int(struct.unpack_from("=I", libbpf.info(program, 220), 216)[0])


def measure(lab: Lab, agent: Agent, backend: PodProcess, clients: Sequence[PodProcess]) -> list[tuple[str, str]]:
    """`agent` redirects the VIP's port 53 over UDP. It has the container's rights before and after."""
    with policies_of_the_bench(lab, agent):
        rows = _measure(lab, agent, backend, clients, "as in the container")
        with patch.object(lab_agent, "RIGHTS", ()):
            _load_again(agent)
            rows += _measure(lab, agent, backend, clients, "with all of root's rights")
        _load_again(agent)
    return rows


@contextmanager
def policies_of_the_bench(lab: Lab, agent: Agent) -> Iterator[None]:
    """Adds the policies for _ONE, _MANY and _LIMITED, and removes them in the end."""
    pods = [FakePod(f"many{i}", f"10.78.9.{i}", f"fd78::9:{i}") for i in range(1, _BACKENDS + 1)]
    former = agent.states()
    lab.write("bench-pods", *(manifests.pod(pod, app="many") for pod in pods))  # type: ignore[arg-type]
    lab.write(
        "bench-policies",
        manifests.policy("one", ip=_ONE, sessionAffinity="ClientIP"),
        manifests.policy("many", ip=_MANY, app="many", sessionAffinity="ClientIP"),
        manifests.policy("limited", ip=_LIMITED, redirectQosLimit=1_000_000_000),
    )
    wait_until(lambda: agent.states() == former | dict.fromkeys(("one", "many", "limited"), "Active"), "all are active")
    yield
    lab.remove("bench-policies")
    lab.remove("bench-pods")
    wait_until(lambda: agent.states() == former, "the former policies are left")


def _load_again(agent: Agent) -> None:
    policies = agent.states()
    agent.terminate()
    agent.command("detach")
    agent.start()
    wait_until(lambda: agent.states() == policies, "the policies are in the same state")


def _measure(
    lab: Lab, agent: Agent, backend: PodProcess, clients: Sequence[PodProcess], rights: str
) -> list[tuple[str, str]]:
    build = agent.status()["build"]
    ours = {hook: libbpf.open_pin(lab.bpffs / build / "programs" / hook) for hook in ("sendmsg4", "connect4")}
    followed = (f"{hook} {_followed(program):,}" for hook, program in ours.items())
    rows = [("instructions that the verifier followed", f"{', '.join(followed)} of 1,000,000")]
    rounds: defaultdict[Case, list[tuple[float, float]]] = defaultdict(list)
    with ExitStack() as stack:
        stack.enter_context(statistics())
        empty = stack.enter_context(empty_programs(lab.cgroup))
        least = stack.enter_context(minimal_programs(lab, backend))
        for _ in range(ROUNDS):
            for case in _CASES:
                programs = least if case.address == _MINIMAL else ours
                rounds[case].append(_compare(programs[case.hook], empty[case.hook], case, clients))
        stack.enter_context(_watched(lab, agent))
        for _ in range(ROUNDS):
            for case in _WATCHED:
                rounds[case].append(_compare(ours[case.hook], empty[case.hook], case, clients))
    for descriptor in ours.values():
        os.close(descriptor)
    for case, times in rounds.items():
        time, base = sorted(times, key=lambda each: each[0] / each[1])[ROUNDS // 2]
        text = f"{time:.0f} ns, {time / base:.2f}x an empty program ({base:.0f} ns)"
        rows.append((f"{case.hook}, {case.what}", text))
    return [(f"{rights}: {name}", text) for name, text in rows]


def _compare(program: int, empty: int, case: Case, clients: Sequence[PodProcess]) -> tuple[float, float]:
    """Nanoseconds per run of both programs in the same calls."""
    before = _counts(program), _counts(empty)
    case.run(clients)
    after = _counts(program), _counts(empty)
    time, base = ((late[0] - early[0]) / (late[1] - early[1]) for early, late in zip(before, after, strict=True))
    return time, base
