"""Nanoseconds per run of the programs (kernel.bpf_stats_enabled), compared with an empty program on the same cgroup.

Measured twice: loaded with only CAP_BPF and CAP_NET_ADMIN, as in the container, and with all of root's rights, for
which the verifier leaves out its barriers.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

from bpf import libbpf
from bpf.build import HOOKS, KERNEL_TREE
from tests.lab import lab as laboratory
from tests.lab.lab import VIP, Agent, Lab, PodProcess, wait_until

CALLS = 100_000
FRESH_CALLS = 20_000
ROUNDS = 5
_STATS = Path("/proc/sys/kernel/bpf_stats_enabled")
_EMPTY = "#include <uapi/linux/bpf.h>\nint empty(struct bpf_sock_addr *ctx) { return 1; }\n"


@contextmanager
def statistics() -> Iterator[None]:
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

    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    compiled = BPF(text=_EMPTY)
    links, programs = [], {}
    for hook in ("connect4", "sendmsg4"):
        programs[hook] = os.dup(compiled.load_func(b"empty", BPF.CGROUP_SOCK_ADDR, attach_type=HOOKS[hook]).fd)
        compiled.funcs.clear()  # so that it is loaded again, for another attach type
        links.append(libbpf.link_create(programs[hook], directory, HOOKS[hook], 0))
    try:
        yield programs
    finally:
        for descriptor in (*links, *programs.values(), directory):
            os.close(descriptor)


def _counts(program: int) -> tuple[int, int]:
    """run_time_ns and run_cnt of struct bpf_prog_info."""
    time_ns, runs = struct.unpack_from("=QQ", libbpf.info(program, 208), 192)
    return time_ns, runs


def _followed(program: int) -> int:
    """verified_insns of struct bpf_prog_info: the verifier gives up at a million."""
    return int(struct.unpack_from("=I", libbpf.info(program, 220), 216)[0])


def measure(lab: Lab, agent: Agent, client: PodProcess) -> list[tuple[str, str]]:
    """The agent redirects VIP port 53 over UDP. It runs with the container's rights before and after."""
    rows = _measure(lab, agent, client, "as in the container")
    with patch.object(laboratory, "RIGHTS", ()):
        _load_again(agent)
    rows += _measure(lab, agent, client, "with all of root's rights")
    _load_again(agent)
    return rows


def _load_again(agent: Agent) -> None:
    policies = agent.states()
    agent.terminate()
    agent.command("detach")
    agent.start()
    wait_until(lambda: agent.states() == policies, "the policies are in the same state")


def _measure(lab: Lab, agent: Agent, client: PodProcess, rights: str) -> list[tuple[str, str]]:
    cases = {
        "a port without frontends": (VIP, 9999),
        "a frontend's port, another address": ("169.254.0.92", 53),
        "a hit": (VIP, 53),
    }
    rows: list[tuple[str, str]] = []
    build = agent.status()["build"]
    ours = {hook: libbpf.open_pin(lab.bpffs / build / "programs" / hook) for hook in ("sendmsg4", "connect4")}
    followed = (f"{hook} {_followed(program):,}" for hook, program in ours.items())
    rows.append((f"{rights}: instructions that the verifier followed", f"{', '.join(followed)} of 1,000,000"))
    with statistics(), empty_programs(lab.cgroup) as empty:
        for hook, order in (("sendmsg4", "sends"), ("connect4", "connects")):
            more: dict[str, object] = {"until": 0.0} if order == "sends" else {"fresh": False}
            for what, (address, port) in cases.items():
                call = partial(client.do, order, address=address, port=port, calls=CALLS, **more)
                time, base = _compare(ours[hook], empty[hook], call)
                rows.append(
                    (f"{rights}: {hook}, {what}", f"{time:.0f} ns, {time / base:.2f}x an empty program ({base:.0f} ns)")
                )
        call = partial(client.do, "connects", address=VIP, port=53, calls=FRESH_CALLS, fresh=True)
        time, base = _compare(ours["connect4"], empty["connect4"], call)
        rows.append(
            (
                f"{rights}: connect4, a hit on a new socket",
                f"{time:.0f} ns, {time - base:.0f} ns more than an empty program",
            )
        )
    for descriptor in ours.values():
        os.close(descriptor)
    return rows


def _compare(program: int, empty: int, run: Callable[[], object]) -> tuple[float, float]:
    """Nanoseconds per run of both programs in the same calls. Of all rounds, the one with the median ratio."""
    rounds = []
    for _ in range(ROUNDS):
        before = _counts(program), _counts(empty)
        run()
        after = _counts(program), _counts(empty)
        time, base = ((late[0] - early[0]) / (late[1] - early[1]) for early, late in zip(before, after, strict=True))
        rounds.append((time, base))
    return sorted(rounds, key=lambda each: each[0] / each[1])[ROUNDS // 2]
