"""A small HTTP server that an actor owns: fixed paths, each answered by a function.

Whoever can reach the port may be hostile, so everything that a client can hold is bounded: the number of connections,
the size of a request, the time from the first byte to the last, the answers that nobody fetches, and the work, since
requests that wait for the same path get the same answer. One thread serves all connections without ever waiting for one
of them. The standard library parses and formats; its own server, waitress
and cheroot bound each read, but not the whole request, and an honest client waits while others hold all connections.
"""

from __future__ import annotations

import io
import logging
import os
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from typing import NamedTuple, TypeAlias

_log = logging.getLogger(__name__)

MOST_CONNECTIONS = 64
LONGEST_REQUEST = 16 * 1024
"""Bytes of the request line and the headers. No path takes a body: what follows the headers is not kept."""
EXCHANGE_SECONDS = 10.0
"""From the moment a connection is accepted to its end."""
MOST_UNSENT = 16 * 1024 * 1024
"""Bytes of answers that clients have not fetched yet; one answer may be longer."""
_MOST_DISCARDED = 1024 * 1024
"""Bytes that are read after the answer, so that the client is not reset before it has read that."""
_ACCEPTED_AT_ONCE = MOST_CONNECTIONS // 2
"""Fewer than are kept, so that one that was just accepted is not closed before its request was looked at."""
_BACKLOG = 512
_CHUNK = 64 * 1024
_RETRY_SECONDS = 1.0
_COMPLAINT_SECONDS = 60.0
_NO_DESCRIPTOR_SECONDS = 0.1


class Answer(NamedTuple):
    status: HTTPStatus
    content_type: str
    body: bytes


Routes: TypeAlias = Mapping[str, Callable[[], Answer]]


def _ignore(_fault: str) -> None:
    pass


class HttpServer:
    """`run` blocks in the owner's thread until `stop`.

    An address that can't be listened on is no failure, since nothing else that the process does depends on it: the log
    says so once, and it is tried again each second. `on_fault` is told the outcome of each attempt, in any thread: the
    reason, or "" when the server listens.
    """

    def __init__(
        self, *, section: str, address: str, port: int, routes: Routes, on_fault: Callable[[str], None] = _ignore
    ) -> None:
        self._section = section
        self._address = address
        self._port = port
        self._routes = routes
        self._on_fault = on_fault
        self._fault = ""
        self._waker, self._woken = socket.socketpair()
        self._listener = self._try_to_listen()

    def run(self) -> None:
        with self._woken, selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            while self._listener is None:
                if selector.select(_RETRY_SECONDS):
                    return
                self._listener = self._try_to_listen()
            with self._listener:
                _Service(self._section, selector, self._listener, self._routes).run(self._woken)

    def stop(self) -> None:
        """Takes effect at once: a successor wants the port."""
        self._waker.close()

    def _try_to_listen(self) -> socket.socket | None:
        keys = f"{self._section}.address, {self._section}.port"
        try:
            listener = _listen(self._address, self._port)
        except OSError as error:
            # The text of `error` names the address once more.
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            fault = f"{keys}: cannot listen on {self._address} port {self._port}: {reason}"
            if fault != self._fault:
                _log.warning("%s; retrying each second, everything else keeps running", fault)
            self._fault = fault
            self._on_fault(fault)
            return None
        if self._fault:
            _log.info("%s: now listening on %s port %d", keys, self._address, self._port)
        self._fault = ""
        self._on_fault("")
        return listener


def _listen(address: str, port: int) -> socket.socket:
    """0.0.0.0 and :: both mean all addresses of both families: a node may have IPv6 only, or no IPv6."""
    if ip_address(address).is_unspecified:
        both = socket.has_dualstack_ipv6()
        address, family = ("::", socket.AF_INET6) if both else ("0.0.0.0", socket.AF_INET)
    else:
        both, family = False, socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    listener.setblocking(False)
    return listener


@dataclass(slots=True, eq=False)
class _Connection:
    """One request and its answer. It reads until the request is whole, then sends, then discards what still comes."""

    socket: socket.socket
    client: str
    deadline: float
    request: bytearray = field(default_factory=bytearray)
    answer: bytes | None = None
    """None until the request is whole; empty when all of it was sent."""
    sent: int = 0
    discarded: int = 0


_Step: TypeAlias = Callable[[_Connection], None]


def one_to_close(connections: Iterable[_Connection]) -> _Connection:
    """The oldest one of the client that has the most.

    An honest client has few connections, and its request comes as soon as it is connected. So it is served however many
    connections a hostile one keeps or opens.
    """
    candidates = list(connections)
    held = Counter(each.client for each in candidates)
    most = max(held.values())
    return next(each for each in candidates if held[each.client] == most)


class _Service:
    """The loop over one listening socket and its connections, which it owns."""

    def __init__(self, section: str, selector: selectors.BaseSelector, listener: socket.socket, routes: Routes) -> None:
        self._section = section
        self._selector = selector
        self._listener = listener
        self._routes = routes
        self._connections: dict[_Connection, None] = {}
        """In the order in which they were accepted, so the first one's deadline is the next."""
        self._whole: list[_Connection] = []
        """Those whose requests are whole, and are answered once all others were read."""
        self._complained_at = float("-inf")

    def run(self, woken: socket.socket) -> None:
        self._selector.register(self._listener, selectors.EVENT_READ)
        try:
            while True:
                events = self._selector.select(self._seconds_left())
                if any(key.fileobj is woken for key, _ in events):
                    return
                for key, _ in events:
                    if key.fileobj is self._listener:
                        self._accept_some()
                    elif key.data in self._connections:  # it may have been closed for another one since
                        self._take_step(key.data, self._next_step(key.data))
                self._answer_whole()
                while (left := self._seconds_left()) is not None and left <= 0:
                    self._close(next(iter(self._connections)), "the exchange took too long")
        finally:
            for connection in list(self._connections):
                self._close(connection, "the server is stopping")

    def _seconds_left(self) -> float | None:
        """Until the first deadline; None when there is no connection."""
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
                self._give_up_a_descriptor(error)
                return
            accepted.setblocking(False)
            if len(self._connections) >= MOST_CONNECTIONS:
                self._make_room()
            connection = _Connection(accepted, str(client[0]), time.monotonic() + EXCHANGE_SECONDS)
            self._connections[connection] = None
            self._selector.register(accepted, selectors.EVENT_READ, connection)
            self._take_step(connection, self._receive)  # usually the request is there already

    def _give_up_a_descriptor(self, error: OSError) -> None:
        """Most likely there is none left. One of ours will do; else others have them all, and we wait."""
        _log.debug("%s: cannot accept a connection: %s", self._section, error)
        if self._connections:
            self._close(one_to_close(self._connections), "no file descriptor is left")
        else:
            time.sleep(_NO_DESCRIPTOR_SECONDS)  # the listener stays readable meanwhile

    def _make_room(self) -> None:
        connection = one_to_close(self._connections)
        now = time.monotonic()
        if now - self._complained_at >= _COMPLAINT_SECONDS:
            self._complained_at = now
            _log.warning(
                "%s: %d connections are open, and more are not allowed; closing the oldest ones of the client that has "
                "the most, now %s",
                self._section,
                MOST_CONNECTIONS,
                connection.client,
            )
        self._close(connection, "too many connections are open")

    def _next_step(self, connection: _Connection) -> _Step:
        if connection.answer is None:
            return self._receive
        return self._send if connection.answer else self._discard

    def _take_step(self, connection: _Connection, step: _Step) -> None:
        try:
            step(connection)
        except BlockingIOError:
            return
        except OSError as error:
            self._close(connection, str(error))
        except Exception:  # noqa: BLE001  (whatever a client sends ends its own connection, and nothing else)
            _log.exception("%s: cannot answer a request from %s", self._section, connection.client)
            self._close(connection, "its request cannot be answered")

    def _receive(self, connection: _Connection) -> None:
        chunk = connection.socket.recv(LONGEST_REQUEST + 1 - len(connection.request))
        if not chunk:
            self._close(connection, "the client closed it")
            return
        connection.request += chunk
        if _is_whole(connection.request) or len(connection.request) > LONGEST_REQUEST:
            self._whole.append(connection)

    def _answer_whole(self) -> None:
        whole, self._whole = self._whole, []
        routes = {path: cache(route) for path, route in self._routes.items()}
        for connection in whole:
            if connection in self._connections:
                self._take_step(connection, partial(self._answer, routes))

    def _answer(self, routes: Routes, connection: _Connection) -> None:
        connection.answer = answer_to(bytes(connection.request), connection.client, routes)
        connection.request.clear()
        self._selector.modify(connection.socket, selectors.EVENT_WRITE, connection)
        self._send(connection)

    def _send(self, connection: _Connection) -> None:
        answer = connection.answer or b""
        connection.sent += connection.socket.send(memoryview(answer)[connection.sent :])
        if connection.sent == len(answer):
            connection.answer = b""
            connection.socket.shutdown(socket.SHUT_WR)
            self._selector.modify(connection.socket, selectors.EVENT_READ, connection)
            return
        unfetched = [each for each in self._connections if each.answer]
        if len(unfetched) > 1 and sum(len(each.answer or b"") for each in unfetched) > MOST_UNSENT:
            self._close(one_to_close(unfetched), "clients do not read their answers")

    def _discard(self, connection: _Connection) -> None:
        chunk = connection.socket.recv(_CHUNK)
        connection.discarded += len(chunk)
        if not chunk or connection.discarded > _MOST_DISCARDED:
            self._close(connection, "the exchange is complete")

    def _close(self, connection: _Connection, reason: str) -> None:
        _log.debug("%s: closing the connection of %s: %s", self._section, connection.client, reason)
        del self._connections[connection]
        self._selector.unregister(connection.socket)
        connection.socket.close()


def _is_whole(request: bytes | bytearray) -> bool:
    return b"\n\r\n" in request or b"\n\n" in request


def answer_to(request: bytes, client: str, routes: Routes) -> bytes:
    """The whole answer to a request that is whole, or too long."""
    return _Exchange(request, client, routes).answer()


class _Exchange(BaseHTTPRequestHandler):
    """One request and its answer in memory: the base class parses the one and formats the other."""

    server_version = "LocalRedirect"
    sys_version = ""

    def __init__(self, request: bytes, client: str, routes: Routes) -> None:
        # The base class's constructor would read from a socket, and wait for it.
        self.client_address = (client, 0)
        self._routes = routes
        self.rfile = io.BytesIO(request)
        self._written = io.BytesIO()
        self.wfile = self._written
        if _is_whole(request):
            self.handle_one_request()
        else:
            self.command = self.requestline = self.request_version = ""
            too_long = b"\n" not in request
            status = HTTPStatus.REQUEST_URI_TOO_LONG if too_long else HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self.send_error(status, explain=f"Allowed: {LONGEST_REQUEST} bytes of request line and headers")

    def answer(self) -> bytes:
        return self._written.getvalue()

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        _log.debug("%s " + format, self.client_address[0], *args)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        route = self._routes.get(path)
        try:
            answer = route() if route else Answer(HTTPStatus.NOT_FOUND, "text/plain", b"not found\n")
        except Exception:  # noqa: BLE001  (the one who asked learns of it, and so does the log)
            _log.exception("cannot answer %s", path)
            answer = Answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", b"see the agent's log\n")
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if with_body:
            self._written.write(answer.body)
