"""The HTTP request of a health check, and the status that comes back."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from actors.health.http_message import NotHttp, request, status_of
from config.domain.addresses import Endpoint
from config.version import VERSION


def test_a_request_names_the_server_and_who_asks() -> None:
    assert request(Endpoint(ip_address("fd00::1"), 8080), "/ready?a=b").decode() == (
        "GET /ready?a=b HTTP/1.1\r\n"
        "Host: [fd00::1]:8080\r\n"
        f"User-Agent: localredirect/{VERSION}\r\n"
        "Accept: */*\r\n"
        "Connection: close\r\n"
        "\r\n"
    )


@pytest.mark.parametrize(
    ("received", "status"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", 200),
        (b"HTTP/1.0 503 Service Unavailable\r\n", 503),
        (b"HTTP/1.1 204\r\n\r\n", 204),
        (b"HTTP/1.1 301 ", 301),
        (b"HTTP/1.1 200", None),
        (b"HT", None),
        (b"", None),
    ],
)
def test_the_status_stands_in_the_first_bytes(received: bytes, status: int | None) -> None:
    assert status_of(received) == status


@pytest.mark.parametrize(
    "received",
    [b"HTTP/2.0 200 OK\r\n", b"HTTP/1.1 2000 OK\r\n", b"HTTP/1.1 600 OK\r\n", b"HTTP/1.1  200 OK", b"\0" * 13],
)
def test_anything_else_is_no_http(received: bytes) -> None:
    with pytest.raises(NotHttp):
        status_of(received)
