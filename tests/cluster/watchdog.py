"""Removes a sandbox when its owner closes it or dies: `python -m tests.cluster.watchdog ID`.

Its standard input is a pipe that only the owner holds open, so it is closed when the owner dies in any way. The owner's
`close` only closes the pipe and waits for this process.
"""

from __future__ import annotations

import signal
import sys

from tests.cluster.leftovers import remove

if __name__ == "__main__":
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    sys.stdin.read()
    remove(sys.argv[1])
