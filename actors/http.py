"""A small HTTP server that an actor owns: fixed paths, each answered by a function."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, NamedTuple, TypeAlias

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.2
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
        except OSError as error:
            msg = f"{section}.address, {section}.port: can't listen on {address} port {port}: {error.strerror}"
            raise ListenError(msg) from error

    def run(self) -> None:
        self._server.serve_forever(_POLL_SECONDS)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)


class _Handler(BaseHTTPRequestHandler):
    paths: ClassVar[Routes] = {}
    timeout = _CLIENT_SECONDS

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        _log.debug("%s " + format, self.client_address[0], *args)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        route = self.paths.get(path)
        answer = route() if route else Answer(HTTPStatus.NOT_FOUND, "text/plain", b"not found\n")
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if with_body:
            self.wfile.write(answer.body)
