"""The closer as users run it: `python run.py closer --config FILE`, with the rights of its container."""

from __future__ import annotations

import subprocess
import sys

from tests.lab.agent import Agent
from tests.lab.lab import Lab
from tests.lab.processes import ROOT, wait_until
from tests.lab.worker import SLOWNESS

CLOSER_RIGHTS = ("setpriv", "--bounding-set=-all,+sys_admin,+net_admin")


class Closer:
    """Starts beside the agent, in the node's network, and is ready."""

    def __init__(
        self, lab: Lab, agent: Agent, *, rights: tuple[str, ...] = CLOSER_RIGHTS, within: tuple[str, ...] = ()
    ) -> None:
        self._lab = lab
        self.log = lab.folder / f"closer-{agent.health}-{len(list(lab.folder.glob('closer-*')))}.log"
        node = ("nsenter", f"--net=/run/netns/{lab.node}")
        command = [*node, *within, *rights, sys.executable, "run.py", "closer", "--config", str(agent.config)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    def lines_with(self, text: str) -> int:
        """The number of lines of its log that contain the text."""
        return sum(text in line for line in self.log.read_text().splitlines())

    def await_line(self, text: str, times: int = 1) -> None:
        wait_until(lambda: self.lines_with(text) >= times, f"the closer logs {times} times: {text}")

    def terminate(self) -> int:
        self.process.terminate()
        return self.process.wait(10 * SLOWNESS)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
