"""A small HTTP server that an actor owns: fixed paths, each answered by a function."""

from __future__ import annotations

import logging
import selectors
import socket
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, NamedTuple, TypeAlias

_log = logging.getLogger(__name__)
_CLIENT_SECONDS = 10


class Answer(NamedTuple):
    status: HTTPStatus
    content_type: str
    body: bytes


Routes: TypeAlias = Mapping[str, Callable[[], Answer]]


class ListenError(Exception):
    """The address can't be listened on; the text names the configuration keys."""


class HttpServer:
    """`run` blocks in the owner's thread until `stop`; each request runs in a thread of its own."""

    def __init__(self, *, section: str, address: str, port: int, routes: Routes) -> None:
        class Handler(_Handler):
            paths = routes

        try:
            self._server = _Server((address, port), Handler)
            self._server.timeout = 0  # asked only when somebody knocks
        except OSError as error:
            msg = f"{section}.address, {section}.port: can't listen on {address} port {port}: {error.strerror}"
            raise ListenError(msg) from error
        self._waker, self._woken = socket.socketpair()

    def run(self) -> None:
        """Does not poll, as the standard library's loop does, and stops at once: a successor wants the port."""
        with self._server, self._woken, selectors.DefaultSelector() as selector:
            selector.register(self._server, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while all(key.fileobj is not self._woken for key, _ in selector.select()):
                self._server.handle_request()

    def stop(self) -> None:
        self._waker.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client went away, or sent what is no HTTP; what goes wrong with an answer is caught where it is made."""
        del request
        _log.debug("a request of %s broke off", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    paths: ClassVar[Routes] = {}
    timeout = _CLIENT_SECONDS
    server_version = "LocalRedirect"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        _log.debug("%s " + format, self.client_address[0], *args)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        route = self.paths.get(path)
        try:
            answer = route() if route else Answer(HTTPStatus.NOT_FOUND, "text/plain", b"not found\n")
        except Exception:  # noqa: BLE001  (the one who asked learns of it, and so does the log)
            _log.exception("%s can't be answered", path)
            answer = Answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", b"see the agent's log\n")
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if with_body:
            self.wfile.write(answer.body)
