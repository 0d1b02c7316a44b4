"""Long steps report on stderr what they do and how long they have been running."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def step(what: str) -> Iterator[None]:
    """Prints `what` when the step begins and ends, and every 15 s meanwhile."""
    began = time.monotonic()
    ended = threading.Event()

    def say(state: str) -> None:
        print(f"cluster: {what}: {state} ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)

    def repeat() -> None:
        while not ended.wait(SECONDS_BETWEEN_LINES):
            say("still running")

    print(f"cluster: {what}", file=sys.stderr, flush=True)
    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    state = "failed"
    try:
        yield
        state = "done"
    finally:
        ended.set()
        thread.join()
        say(state)


def run(*command: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> str:
    """Returns stdout. Raises CalledProcessError, with a note of what the command wrote to both streams."""
    try:
        return subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=cwd, env=environment, stdin=subprocess.DEVNULL
        ).stdout
    except subprocess.CalledProcessError as error:
        error.add_note(f"{error.stdout[-4000:]}\n{error.stderr[-4000:]}")
        raise


def checked(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """Raises CalledProcessError if the command failed, with a note of what it wrote."""
    if done.returncode:
        error = subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
        error.add_note(f"{done.stdout}{done.stderr or ''}")
        raise error
    return done
