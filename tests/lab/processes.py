"""Processes that tests start, in namespaces or elsewhere, and waiting for what they do."""

from __future__ import annotations

import contextlib
import ctypes
import json
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from tests.lab.worker import SLOWNESS

ROOT = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 30.0
"""Much longer than anything takes, since a test may share its machine with a compiler."""
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
