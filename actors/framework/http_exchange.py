"""One HTTP request and its answer, in memory. The standard library parses the request and formats the answer."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import NamedTuple, TypeAlias

_log = logging.getLogger(__name__)

LONGEST_REQUEST = 16 * 1024
"""Bytes of the request line and the headers. No path takes a body, so whatever follows the headers is discarded."""


class Answer(NamedTuple):
    status: HTTPStatus
    content_type: str
    body: bytes


Routes: TypeAlias = Mapping[str, Callable[[], Answer]]
"""Path -> function that makes the answer."""


def is_complete(request: bytes | bytearray) -> bool:
    """Whether the empty line that ends the headers has arrived."""
    return b"\n\r\n" in request or b"\n\n" in request


def answer_to(request: bytes, client: str, routes: Routes) -> bytes:
    """Returns the bytes of the answer to a request that is complete, or that is longer than LONGEST_REQUEST."""
    return _Exchange(request, client, routes).answer()


class _Exchange(BaseHTTPRequestHandler):
    server_version = "LocalRedirect"
    sys_version = ""

    def __init__(self, request: bytes, client: str, routes: Routes) -> None:
        # Do not call the constructor of the base class: it reads from a socket, and blocks.
        self.client_address = (client, 0)
        self._routes = routes
        self.rfile = io.BytesIO(request)
        self._written = io.BytesIO()
        self.wfile = self._written
        if is_complete(request):
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
        except Exception:  # noqa: BLE001  (the client gets a 500, and the log gets the traceback)
            _log.exception("cannot answer %s", path)
            answer = Answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", b"see the agent's log\n")
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if with_body:
            self._written.write(answer.body)
