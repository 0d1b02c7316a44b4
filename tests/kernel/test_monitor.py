"""`run.py monitor`: what is decided about calls, as it happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import manifests
from tests.lab.agent import RIGHTS, Agent
from tests.lab.lab import VIP, Lab, PodProcess
from tests.lab.processes import ROOT, wait_until


class Monitor:
    """Runs beside the agent, with the rights of its container. `watch` starts one and waits until it sees calls."""

    def __init__(self, lab: Lab, agent: Agent, *options: str) -> None:
        self._log = lab.folder / f"monitor-{len(list(lab.folder.glob('monitor-*')))}.log"
        node = ("nsenter", f"--net=/run/netns/{lab.node}")
        command = [*node, *RIGHTS, sys.executable, "run.py", "monitor", "--config", str(agent.config), "-o", "json"]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen([*command, *options], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines() if line.endswith("}")]

    def await_lines(self, number: int) -> list[dict[str, Any]]:
        wait_until(lambda: len(self.lines()) >= number, f"{number} lines, of {self._log.read_text()}")
        return self.lines()

    def await_end(self) -> int:
        return self.process.wait(30)

    def interrupt(self) -> int:
        self.process.send_signal(2)
        return self.await_end()


@pytest.fixture
def monitors(lab: Lab, agent: Agent, pods: list[PodProcess], client: PodProcess) -> Iterator[list[Monitor]]:
    """The monitors that the test starts, which end with it. A policy is in force, over a Pod whose own calls pass; the
    client is a Pod, too."""
    lab.write("pods", manifests.pod(pods[0]), manifests.pod(client, app="other"))
    lab.write("policies", manifests.policy("vip"))
    wait_until(lambda: agent.states() == {"vip": "Active"}, "active")
    wait_until(lambda: "no cgroup" not in agent.message("vip"), "the Pod's cgroup is found")
    made: list[Monitor] = []
    yield made
    for each in made:
        each.process.kill()
        each.process.wait()


def watch(lab: Lab, agent: Agent, monitors: list[Monitor], caller: PodProcess, *options: str) -> Monitor:
    """Starts a monitor, calls until it shows a call, and waits until it has shown the last of these calls.

    A line that says how many calls were lost is not enough: it may stand for all calls of a second in which an earlier
    test made too many, and then the last call would be lost as well.
    """
    made = Monitor(lab, agent, *options)
    monitors.append(made)

    def is_watching() -> bool:
        caller.do("udp", address=VIP, port=53)
        return any("hook" in line for line in made.lines())

    wait_until(is_watching, "the monitor sees a call")
    caller.do("udp", address=VIP, port=53, connected=True)
    wait_until(lambda: any(line.get("hook") == "connect4" for line in made.lines()), "the monitor sees the last call")
    return made


def test_a_redirect_and_a_pass_are_shown_with_names_and_numbers(
    lab: Lab, agent: Agent, monitors: list[Monitor], client: PodProcess, pods: list[PodProcess]
) -> None:
    monitor = watch(lab, agent, monitors, client)
    seen = len(monitor.lines())
    pods[0].do("udp", address=VIP, port=53)
    client.do("udp", address=VIP, port=53, connected=True)
    passed, redirected = monitor.await_lines(seen + 2)[-2:]
    assert redirected == {
        "time": redirected["time"],
        "hook": "connect4",
        "client": "default/client",
        "client_netns": client.do("cookie")["cookie"],
        "pid": client.pid,
        "command": Path(f"/proc/{client.pid}/comm").read_text().rstrip("\n"),
        "frontend": f"{VIP}:53/UDP",
        "policy": "vip",
        "verdict": "redirect",
        "reason": None,
        "backend": f"{pods[0].address}:53",
    }
    expected = {"hook": "sendmsg4", "client": "default/pod0", "verdict": "pass", "reason": "from_backend"}
    assert passed.items() >= expected.items()
    assert passed["backend"] is None


def test_calls_elsewhere_are_not_shown(
    lab: Lab, agent: Agent, monitors: list[Monitor], client: PodProcess, pods: list[PodProcess]
) -> None:
    monitor = watch(lab, agent, monitors, client)
    seen = len(monitor.lines())
    client.do("udp", address=pods[1].address, port=53)
    client.do("udp", address=VIP, port=53)
    assert len(monitor.await_lines(seen + 1)) == seen + 1


@pytest.mark.parametrize("client_option", ["host", "pid", "cgroup", "pod"])
def test_the_caller_may_be_named_as_in_explain(
    lab: Lab, agent: Agent, monitors: list[Monitor], client: PodProcess, client_option: str
) -> None:
    host = lab.host_process(f"monitor-host-{client_option}")
    caller, other = (host, client) if client_option == "host" else (client, host)
    named = {
        "host": "host",
        "pid": f"pid:{client.pid}",
        "cgroup": f"cgroup:{client.cgroup}",
        "pod": "default/client",
    }
    monitor = watch(lab, agent, monitors, caller, "--from", named[client_option], "--policy", "vip", "--seconds", "60")
    other.do("udp", address=VIP, port=53)
    seen = len(monitor.lines())
    caller.do("udp", address=VIP, port=53)
    monitor.await_lines(seen + 1)
    assert {line["pid"] for line in monitor.lines()} == {caller.pid}


def test_with_count_monitor_ends_after_that_many_lines(
    lab: Lab, agent: Agent, monitors: list[Monitor], client: PodProcess
) -> None:
    monitor = watch(lab, agent, monitors, client, "--count", "100")
    for _ in range(110):
        client.do("udp", address=VIP, port=53)
    assert monitor.await_end() == 0
    assert len(monitor.lines()) == 100


def test_monitor_ends_when_nobody_reads_its_output(
    lab: Lab, agent: Agent, monitors: list[Monitor], client: PodProcess
) -> None:
    """As with `| head`."""
    watch(lab, agent, monitors, client)  # so that the programs report calls from the beginning
    command = ["nsenter", f"--net=/run/netns/{lab.node}", *RIGHTS, sys.executable, "run.py", "monitor"]
    reader, writer = os.pipe()
    with subprocess.Popen([*command, "--config", str(agent.config)], cwd=ROOT, stdout=writer) as process:
        os.close(writer)
        os.close(reader)

        def has_ended() -> bool:
            client.do("udp", address=VIP, port=53)
            return process.poll() is not None

        wait_until(has_ended, "it ends")
        assert process.returncode == 0


@pytest.mark.usefixtures("monitors")
def test_with_seconds_monitor_ends_after_that_many_seconds(lab: Lab, agent: Agent) -> None:
    assert Monitor(lab, agent, "--seconds", "1").await_end() == 0


def test_several_monitors_watch_at_once_and_leave_nothing_behind(
    lab: Lab, agent: Agent, monitors: list[Monitor], client: PodProcess
) -> None:
    first = watch(lab, agent, monitors, client)
    second = watch(lab, agent, monitors, client)
    shown = [len(each.lines()) for each in (first, second)]
    client.do("udp", address=VIP, port=53)
    assert first.await_lines(shown[0] + 1)[-1] == second.await_lines(shown[1] + 1)[-1]
    assert first.interrupt() == 0
    client.do("udp", address=VIP, port=53)
    second.await_lines(shown[1] + 2)
    second.process.kill()

    def is_over() -> bool:
        client.do("udp", address=VIP, port=53)
        return not agent.is_watched()

    wait_until(is_over, "the programs notice that nobody watches")


def test_what_exceeds_the_rate_is_counted(lab: Lab, agent: Agent, monitors: list[Monitor], client: PodProcess) -> None:
    monitor = watch(lab, agent, monitors, client)
    seen = len(monitor.lines())
    client.do("sends", address=VIP, port=53, calls=20_000, until=0.0)

    def accounted() -> int:
        lines = monitor.lines()[seen:]
        return sum(line.get("lost", 1) for line in lines)

    wait_until(lambda: accounted() == 20_000, "each call is shown, or counted as lost")
    assert any("lost" in line for line in monitor.lines()[seen:])


def test_monitor_goes_on_when_an_upgrade_replaces_the_programs(
    lab: Lab, agent: Agent, monitors: list[Monitor], client: PodProcess
) -> None:
    monitor = watch(lab, agent, monitors, client)
    before = agent.status()["build"]
    agent.terminate()
    with lab.running_agent(datapath__max_frontends=1000, datapath__bpffs=str(lab.bpffs)) as other:
        wait_until(lambda: other.states() == {"vip": "Active"}, "active")
        assert other.status()["build"] != before
        seen = len(monitor.lines())

        def sees_calls() -> bool:
            client.do("udp", address=VIP, port=53)
            return len(monitor.lines()) > seen

        wait_until(sees_calls, "it sees calls again")


@pytest.mark.parametrize("client", ["nobody", "pid:x", "cgroup:", "a/b/c"])
def test_a_caller_that_nobody_can_be_is_refused(agent: Agent, client: str) -> None:
    result = agent.command("monitor", "--from", client)
    assert result.returncode == 2
    assert result.stderr == f"--from: {client!r} is wrong; it must be NAMESPACE/POD, host, pid:N or cgroup:PATH\n"
