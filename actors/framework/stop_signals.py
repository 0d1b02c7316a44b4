"""What the main thread of a process waits for: a signal that stops the process, or `end` from another thread."""

from __future__ import annotations

import signal
import socket

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
