"""The agent of a laboratory, as a process."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bpf.errors import DatapathError
from bpf.inspecting.views import view as installed_view
from bpf.maps.kernel_map import KernelMap
from bpf.maps.packing import ONLY_KEY
from tests.lab.processes import ROOT, in_netns, wait_until
from tests.lab.worker import SLOWNESS

if TYPE_CHECKING:  # the laboratory starts agents, and imports this module
    from tests.lab.lab import Lab

RIGHTS = ("setpriv", "--bounding-set=-all,+bpf,+net_admin")
"""Starts a command with only those capabilities that the agent has in its container. For root with all its
capabilities, the verifier would be less strict, and the programs faster."""


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
        """Policy -> state; for a moment "Active, ..." or the like, while the kernel has not the rows of that state.

        ConflictResolver sends a condition to StatusReporter and the rows to MapWriter at the same time, and either may
        be first. A policy that Failed may have some rows or none.
        """
        found = {policy["name"]: str(policy["state"]) for policy in self.status()["policies"]}
        try:
            installed = {str(row["policy"]) for row in self.inspect("frontends")}
        except DatapathError:  # the agent is of another version, and lays out its rows differently
            return found
        return {
            name: state if state == "Failed" or (state == "Active") is (name in installed) else f"{state}, rows differ"
            for name, state in found.items()
        }

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
