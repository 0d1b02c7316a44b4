"""Long steps report on stderr what they do and how long they have been running."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

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
