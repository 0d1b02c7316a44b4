"""Removes a sandbox when its owner closes it or dies: `python -m tests.cluster.watchdog ID`.

Its standard input is a pipe that only the owner writes to, so that it ends with the owner, however that dies. Nothing
else is needed for a clean machine: the owner's own `close` is to close the pipe and to wait for this process.
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
