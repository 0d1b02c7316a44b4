"""What the main thread of a process waits for: a signal that stops it, or `end` from one of its other threads."""

from __future__ import annotations

import signal
import socket

_STOP = (signal.SIGTERM, signal.SIGINT)
_END = b"\0"  # no signal has this number


class StopSignals:
    """Made in the main thread, once in the life of a process.

    Python runs a signal's handler between two instructions of the main thread. A signal that arrives just before the
    main thread blocks (in a lock, in `epoll_wait`) interrupts nothing, so the handler would only run once something
    else wakes the main thread, which may be never. The interpreter's own C handler therefore writes the signal's
    number to a socket at once (`signal.set_wakeup_fd`), and the main thread waits for that socket.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)  # set_wakeup_fd asks for it
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for each in _STOP:
            signal.signal(each, lambda *_: None)  # the default would kill the process

    def end(self) -> None:
        """In any thread; makes `wait` return."""
        self._writer.send(_END)

    def wait(self) -> None:
        """Blocks until a stop signal, or `end`. Other signals' handlers run meanwhile."""
        while self._reader.recv(1)[0] not in (*_STOP, *_END):
            pass
