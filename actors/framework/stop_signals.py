"""How the main thread of a process waits for a signal that stops the process."""

from __future__ import annotations

import signal
import socket
import time

_STOP = (signal.SIGTERM, signal.SIGINT)
_END = b"\0"  # no signal has this number


class StopSignals:
    """Create it in the main thread, once in the life of a process.

    Python runs a signal handler between two instructions of the main thread. When a signal arrives just before the main
    thread blocks (in a lock or in `epoll_wait`), it interrupts nothing, and the handler runs only when something else
    wakes the main thread, which may never happen. Therefore the interpreter's own C handler writes the signal's number
    to a socket immediately (`signal.set_wakeup_fd`), and the main thread waits for that socket.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)  # set_wakeup_fd requires it
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for each in _STOP:
            signal.signal(each, lambda *_: None)  # the default would kill the process

    def end(self) -> None:
        """May be called in any thread: makes `wait` return."""
        self._writer.send(_END)

    def wait(self) -> None:
        """Blocks until a stop signal arrives or `end` is called. The handlers of other signals run meanwhile."""
        while self._reader.recv(1)[0] not in (*_STOP, *_END):
            pass


class StoppableWait:
    """Waits between the rounds of a command that runs until a stop signal arrives or a number of seconds is over.

    Create it in the main thread before any other thread starts. It blocks the stop signals, so that they end only the
    waiting and never interrupt a round.
    """

    def __init__(self, seconds: float | None) -> None:
        """`seconds` is how long the command runs; None means until a signal arrives."""
        self._until = None if seconds is None else time.monotonic() + seconds
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)

    def __call__(self, seconds: float) -> bool:
        """Waits for so long. Returns whether the command has to end."""
        left = seconds if self._until is None else min(seconds, self._until - time.monotonic())
        if signal.sigtimedwait(_STOP, max(left, 0.0)) is not None:
            return True
        return self._until is not None and time.monotonic() >= self._until
