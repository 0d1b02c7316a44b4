"""One HTTP request, and the status in what the server sends back (RFC 9112). Pure."""

from __future__ import annotations

import re

from config.domain.addresses import Endpoint
from config.version import VERSION

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])[ \r\n]")
_STATUS_LENGTH = len("HTTP/1.1 200 ")


class NotHttp(ValueError):
    """What the server sent is not an HTTP response."""


def request(server: Endpoint, path: str) -> bytes:
    lines = (
        f"GET {path} HTTP/1.1",
        f"Host: {server}",
        f"User-Agent: localredirect/{VERSION}",
        "Accept: */*",
        "Connection: close",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")


def status_of(received: bytes) -> int | None:
    """Returns None while the status line has not arrived. Raises NotHttp."""
    if len(received) < _STATUS_LENGTH:
        return None
    found = _STATUS_LINE.match(received)
    if found is None:
        raise NotHttp
    return int(found[1])
