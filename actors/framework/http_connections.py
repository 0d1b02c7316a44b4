"""The loop over one listening socket and its connections. Each connection has one request and its answer.

Any client that reaches the port may be hostile, so the server limits everything that a client can use up:
- the number of connections, the size of a request, and the time from accepting a connection to closing it;
- the memory for answers that clients do not read;
- the work: requests for the same path that are complete at the same time share one answer.
A single thread serves all connections and never blocks on one of them.

The servers of the standard library, waitress and cheroot bound the time of each read but not of a whole request, and
with them an honest client has to wait while hostile ones hold all connections.
"""

from __future__ import annotations

import logging
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TypeAlias

from actors.framework.http_exchange import LONGEST_REQUEST, Routes, answer_to, is_complete

_log = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
EXCHANGE_SECONDS = 10.0
"""The longest time from accepting a connection to closing it."""
MAX_UNSENT = 16 * 1024 * 1024
"""The most bytes of answers that all clients together may leave unread. A single answer may be longer."""
_MAX_DISCARDED = 1024 * 1024
"""The most bytes that are read and discarded after the answer. Closing a socket with unread bytes would reset the
connection, and the client might lose the answer."""
_ACCEPTED_AT_ONCE = MAX_CONNECTIONS // 2
"""Fewer than MAX_CONNECTIONS, so that a connection is never closed for a newer one before its request was read."""
_CHUNK = 64 * 1024
_WARNING_SECONDS = 60.0
"""At least this long between two warnings that there are too many connections."""
_NO_DESCRIPTOR_SECONDS = 0.1


@dataclass(slots=True, eq=False)
class Connection:
    """A connection receives until the request is complete, then sends the answer, then discards what the client still
    sends."""

    socket: socket.socket
    client: str
    deadline: float
    request: bytearray = field(default_factory=bytearray)
    answer: bytes | None = None
    """None until the request is complete; empty once the whole answer was sent."""
    sent: int = 0
    discarded: int = 0


_Step: TypeAlias = Callable[[Connection], None]


def one_to_close(connections: Iterable[Connection]) -> Connection:
    """Returns the oldest connection of the client that has the most.

    An honest client has few connections and sends its request as soon as it is connected. So it is served, however many
    connections a hostile client opens and keeps.
    """
    candidates = list(connections)
    held = Counter(each.client for each in candidates)
    most = max(held.values())
    return next(each for each in candidates if held[each.client] == most)


class ConnectionLoop:
    """Owns the connections. `section` names the server in the log."""

    def __init__(self, section: str, selector: selectors.BaseSelector, listener: socket.socket, routes: Routes) -> None:
        self._section = section
        self._selector = selector
        self._listener = listener
        self._routes = routes
        self._connections: dict[Connection, None] = {}
        """In the order in which they were accepted, so that the first one has the next deadline."""
        self._complete: list[Connection] = []
        """Those whose requests are complete. They are answered once every other socket that is ready has been read."""
        self._warned_at = float("-inf")

    def run(self, stop: socket.socket) -> None:
        """Serves until `stop`, which the selector watches already, becomes readable."""
        self._selector.register(self._listener, selectors.EVENT_READ)
        try:
            while True:
                events = self._selector.select(self._seconds_left())
                if any(key.fileobj is stop for key, _ in events):
                    return
                for key, _ in events:
                    if key.fileobj is self._listener:
                        self._accept_some()
                    elif key.data in self._connections:  # an earlier event of this round may have closed it
                        self._take_step(key.data, self._next_step(key.data))
                self._answer_complete()
                while (left := self._seconds_left()) is not None and left <= 0:
                    self._close(next(iter(self._connections)), "the exchange took too long")
        finally:
            for connection in list(self._connections):
                self._close(connection, "the server is stopping")

    def _seconds_left(self) -> float | None:
        """Until the next deadline; None when there is no connection."""
        for connection in self._connections:
            return max(0.0, connection.deadline - time.monotonic())
        return None

    def _accept_some(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                accepted, client = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._free_a_descriptor(error)
                return
            accepted.setblocking(False)
            if len(self._connections) >= MAX_CONNECTIONS:
                self._make_room()
            connection = Connection(accepted, str(client[0]), time.monotonic() + EXCHANGE_SECONDS)
            self._connections[connection] = None
            self._selector.register(accepted, selectors.EVENT_READ, connection)
            self._take_step(connection, self._receive)  # usually the request has arrived already

    def _free_a_descriptor(self, error: OSError) -> None:
        """Most likely the process has no file descriptor left: closes a connection, or waits when there is none."""
        _log.debug("%s: cannot accept a connection: %s", self._section, error)
        if self._connections:
            self._close(one_to_close(self._connections), "no file descriptor is left")
        else:
            time.sleep(_NO_DESCRIPTOR_SECONDS)  # without this the loop would spin, since the listener stays readable

    def _make_room(self) -> None:
        connection = one_to_close(self._connections)
        now = time.monotonic()
        if now - self._warned_at >= _WARNING_SECONDS:
            self._warned_at = now
            _log.warning(
                "%s: %d connections are open, and more are not allowed; closing the oldest ones of the client that has "
                "the most (at present %s)",
                self._section,
                MAX_CONNECTIONS,
                connection.client,
            )
        self._close(connection, "too many connections are open")

    def _next_step(self, connection: Connection) -> _Step:
        if connection.answer is None:
            return self._receive
        return self._send if connection.answer else self._discard

    def _take_step(self, connection: Connection, step: _Step) -> None:
        try:
            step(connection)
        except BlockingIOError:
            return
        except OSError as error:
            self._close(connection, str(error))
        except Exception:  # noqa: BLE001  (whatever a client sends ends its own connection, and nothing else)
            _log.exception("%s: cannot answer a request from %s", self._section, connection.client)
            self._close(connection, "its request cannot be answered")

    def _receive(self, connection: Connection) -> None:
        chunk = connection.socket.recv(LONGEST_REQUEST + 1 - len(connection.request))
        if not chunk:
            self._close(connection, "the client closed it")
            return
        connection.request += chunk
        if is_complete(connection.request) or len(connection.request) > LONGEST_REQUEST:
            self._complete.append(connection)

    def _answer_complete(self) -> None:
        complete, self._complete = self._complete, []
        # Requests that are complete at the same time share one answer for each path.
        routes = {path: cache(route) for path, route in self._routes.items()}
        for connection in complete:
            if connection in self._connections:
                self._take_step(connection, partial(self._answer, routes))

    def _answer(self, routes: Routes, connection: Connection) -> None:
        connection.answer = answer_to(bytes(connection.request), connection.client, routes)
        connection.request.clear()
        self._selector.modify(connection.socket, selectors.EVENT_WRITE, connection)
        self._send(connection)

    def _send(self, connection: Connection) -> None:
        answer = connection.answer or b""
        connection.sent += connection.socket.send(memoryview(answer)[connection.sent :])
        if connection.sent == len(answer):
            connection.answer = b""
            connection.socket.shutdown(socket.SHUT_WR)
            self._selector.modify(connection.socket, selectors.EVENT_READ, connection)
            return
        unread = [each for each in self._connections if each.answer]
        if len(unread) > 1 and sum(len(each.answer or b"") for each in unread) > MAX_UNSENT:
            self._close(one_to_close(unread), "clients do not read their answers")

    def _discard(self, connection: Connection) -> None:
        chunk = connection.socket.recv(_CHUNK)
        connection.discarded += len(chunk)
        if not chunk or connection.discarded > _MAX_DISCARDED:
            self._close(connection, "the exchange is complete")

    def _close(self, connection: Connection, reason: str) -> None:
        _log.debug("%s: closing the connection of %s: %s", self._section, connection.client, reason)
        del self._connections[connection]
        self._selector.unregister(connection.socket)
        connection.socket.close()
