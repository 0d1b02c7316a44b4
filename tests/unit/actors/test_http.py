"""The HTTP server against hostile clients, and on addresses that it cannot listen on. Real sockets."""

from __future__ import annotations

import contextlib
import itertools
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from actors.framework import http as listening
from actors.framework import http_connections as serving
from actors.framework.http import HttpServer
from actors.framework.http_connections import MAX_CONNECTIONS, Connection, one_to_close
from actors.framework.http_exchange import LONGEST_REQUEST, Answer, Routes
from tests.unit.peers import WAIT_SECONDS, free_port, http_get

BIG = 10 * 1024 * 1024
ROUTES: Routes = {
    "/ok": lambda: Answer(HTTPStatus.OK, "text/plain", b"ok\n"),
    "/big": lambda: Answer(HTTPStatus.OK, "text/plain", bytes(BIG)),
}
UNFINISHED = b"GET /ok HTTP/1.1\r\nHost: x\r\n"
Start = Callable[..., int]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a server and returns its port."""
    running = []

    def begin(**arguments: Any) -> int:
        given = {"section": "test", "address": "127.0.0.1", "port": free_port(), "routes": ROUTES}
        port = int({**given, **arguments}["port"])
        server = HttpServer(**{**given, "port": port, **arguments})
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        running.append((server, thread))
        return port

    yield begin
    for server, thread in running:
        server.stop()
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()


def get(port: int, path: str = "/ok", address: str = "127.0.0.1") -> tuple[int, bytes]:
    return http_get(port, path, address=address)


def connect(port: int, sent: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS)
    client.sendall(sent)
    return client


def received(client: socket.socket) -> bytes:
    """Returns everything that arrives until the server closes the connection. Raises TimeoutError when it does not."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(1 << 20):
            parts.append(part)
    return b"".join(parts)


# --- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"G", UNFINISHED], ids=["nothing", "a byte", "unfinished headers"])
def test_an_honest_client_is_answered_while_a_hostile_one_opens_more_connections_than_are_kept(
    sent: bytes, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    port = start()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(port, sent)) for _ in range(3 * MAX_CONNECTIONS)]
        for _ in range(3):
            assert get(port) == (200, b"ok\n")
        for old in clients[: 2 * MAX_CONNECTIONS]:
            assert received(old) == b""
        young = clients[-1]
        young.sendall(UNFINISHED.removeprefix(sent) + b"\r\n")
        assert received(young).endswith(b"ok\n")
    (warning,) = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert warning.startswith(f"test: {MAX_CONNECTIONS} connections are open"), "once, not for each connection"
    assert "at present 127.0.0.1" in warning


def test_the_client_with_the_most_connections_loses_its_oldest() -> None:
    def held(client: str) -> Connection:
        return Connection(socket=socket.socket(), client=client, deadline=0.0)

    connections = [held(client) for client in ("honest", "hostile", "other", "hostile")]
    assert one_to_close(connections) is connections[1]
    assert one_to_close(connections[:1]) is connections[0]
    assert one_to_close(connections[:3]) is connections[0], "the oldest when all have as many"
    for each in connections:
        each.socket.close()


TOO_LONG = [
    ("a request line", b"GET /" + b"a" * 2 * LONGEST_REQUEST, 414),
    ("a header", b"GET /ok HTTP/1.1\r\nA: " + b"a" * 2 * LONGEST_REQUEST, 431),
    ("many headers", b"GET /ok HTTP/1.1\r\n" + b"A: a\r\n" * LONGEST_REQUEST, 431),
    ("more headers than are parsed", b"GET /ok HTTP/1.1\r\n" + b"A: a\r\n" * 200 + b"\r\n", 431),
    (
        "a body of an unknown method",
        b"POST /ok HTTP/1.1\r\nContent-Length: 500000\r\n\r\n" + bytes(500_000),
        501,
    ),
    ("a body without a length", b"GET /ok HTTP/1.1\r\n\r\n" + bytes(500_000), 200),
]


@pytest.mark.parametrize(("sent", "status"), [row[1:] for row in TOO_LONG], ids=[row[0] for row in TOO_LONG])
def test_a_request_that_is_too_long_is_refused_and_not_kept(sent: bytes, status: int, start: Start) -> None:
    port = start()
    with connect(port, sent) as client:
        assert received(client).startswith(f"HTTP/1.0 {status} ".encode())
    assert get(port) == (200, b"ok\n")


def test_a_body_without_an_end_is_cut(start: Start) -> None:
    port = start()
    endless = bytes(64 * 1024 * 1024)
    with (
        connect(port, b"POST /ok HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n") as client,
        pytest.raises(OSError, match=r"reset|Broken pipe"),
    ):
        client.sendall(endless)
    assert get(port) == (200, b"ok\n")


def test_a_client_that_sends_byte_by_byte_is_cut_off_however_steadily_it_sends(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "EXCHANGE_SECONDS", 0.5)
    port = start()
    with connect(port, UNFINISHED) as client:
        client.settimeout(0.02)
        ended = False
        for _ in range(LONGEST_REQUEST // 2):
            try:
                client.sendall(b"a")
                ended = client.recv(1) == b""
            except TimeoutError:
                continue
            except ConnectionError:
                ended = True
            if ended:
                break
    assert ended


@pytest.mark.parametrize(
    "sent",
    [b"", UNFINISHED, b"GET /big HTTP/1.1\r\n\r\n", b"GET /ok HTTP/1.1\r\n\r\n"],
    ids=["nothing is sent", "headers have no end", "the answer is not read", "the client stays after its answer"],
)
def test_every_connection_ends_when_its_time_is_up(
    sent: bytes, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(serving, "EXCHANGE_SECONDS", 0.2)
    caplog.set_level(logging.DEBUG, logger="actors.framework.http_connections")
    closed: SimpleQueue[str] = SimpleQueue()
    monkeypatch.setattr(serving._log, "debug", lambda text, *rest: closed.put(text % rest))
    port = start()
    with connect(port, sent):
        line = ""
        while "closing the connection" not in line:
            line = closed.get(timeout=WAIT_SECONDS)
        assert line == "test: closing the connection of 127.0.0.1: the exchange took too long"


def test_answers_that_nobody_reads_are_bounded_and_the_newest_is_kept(start: Start) -> None:
    port = start()
    with connect(port, b"GET /big HTTP/1.0\r\n\r\n") as first, connect(port, b"GET /big HTTP/1.0\r\n\r\n") as second:
        assert len(received(first)) < BIG
        assert len(received(second)) > BIG
        assert len(get(port, "/big")[1]) == BIG


def test_requests_that_wait_together_share_one_answer_that_is_not_older_than_they_are(start: Start) -> None:
    working, release = threading.Event(), threading.Event()
    counted = itertools.count(1)

    def count() -> Answer:
        number = next(counted)
        working.set()
        release.wait(WAIT_SECONDS)
        return Answer(HTTPStatus.OK, "text/plain", str(number).encode())

    port = start(routes={"/count": count})
    request = b"GET /count HTTP/1.0\r\n\r\n"
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(connect(port, request))
        assert working.wait(WAIT_SECONDS)
        others = [stack.enter_context(connect(port, request)) for _ in range(10)]
        release.set()
        assert [received(each)[-1:] for each in (first, *others)] == [b"1"] + [b"2"] * 10


def test_a_client_may_leave_at_any_time(start: Start) -> None:
    port = start()
    for sent in (b"", b"GET", UNFINISHED, b"GET /big HTTP/1.0\r\n\r\n", b"GET /ok HTTP/1.0\r\n\r\n"):
        for linger in (b"\0" * 8, b"\1\0\0\0\0\0\0\0"):  # an orderly end, and a reset
            with connect(port, sent) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    assert get(port) == (200, b"ok\n")


def test_a_bug_of_ours_ends_the_connection_and_not_the_server(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    port = start()
    with monkeypatch.context() as patched, connect(port) as client:
        patched.setattr(serving, "answer_to", lambda *_: 1 / 0)
        client.sendall(UNFINISHED + b"\r\n")
        assert received(client) == b""
    assert "test: cannot answer a request from 127.0.0.1" in caplog.messages
    assert get(port) == (200, b"ok\n")


def test_a_process_that_has_no_descriptors_left_closes_connections_and_keeps_serving() -> None:
    program = """
import resource, sys
from http import HTTPStatus
from actors.framework.http import HttpServer
from actors.framework.http_exchange import Answer
server = HttpServer(section="test", address="127.0.0.1", port=int(sys.argv[1]),
    routes={"/ok": lambda: Answer(HTTPStatus.OK, "text/plain", b"ok\\n")})
resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
print("listening", flush=True)
server.run()
"""
    port = free_port()
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", program, str(port)], cwd=root, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout and process.stdout.readline() == "listening\n"
            with contextlib.ExitStack() as stack:
                for _ in range(32):
                    stack.enter_context(connect(port, UNFINISHED))
                assert get(port) == (200, b"ok\n")
            assert process.poll() is None
        finally:
            process.kill()


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_the_any_address_of_either_family_listens_on_both(address: str, start: Start) -> None:
    port = start(address=address)
    assert get(port, address="127.0.0.1") == (200, b"ok\n")
    assert get(port, address="::1") == (200, b"ok\n")


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_without_ipv6_the_any_address_listens_on_ipv4(
    address: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    assert get(start(address=address)) == (200, b"ok\n")


@pytest.mark.parametrize(("address", "other"), [("127.0.0.1", "::1"), ("::1", "127.0.0.1")])
def test_a_single_address_listens_there_only(address: str, other: str, start: Start) -> None:
    port = start(address=address)
    assert get(port, address=address) == (200, b"ok\n")
    with pytest.raises(ConnectionRefusedError):
        get(port, address=other)


def test_a_busy_port_is_logged_once_and_used_as_soon_as_it_is_free(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="actors.framework.http")
    monkeypatch.setattr(listening, "_RETRY_SECONDS", 0.01)
    faults: SimpleQueue[str] = SimpleQueue()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        start(port=port, on_fault=faults.put)
        line = f"test.address, test.port: cannot listen on 127.0.0.1 port {port}: Address already in use"
        assert [faults.get(timeout=WAIT_SECONDS) for _ in range(3)] == [line] * 3
    while faults.get(timeout=WAIT_SECONDS):
        pass
    assert get(port) == (200, b"ok\n")
    assert caplog.messages == [
        f"{line}; retrying each second, everything else keeps running",
        f"test.address, test.port: now listening on 127.0.0.1 port {port}",
    ]


def test_a_server_that_waits_for_its_port_can_be_stopped(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        start(port=taken.getsockname()[1])


def test_an_address_that_the_machine_does_not_have_is_reported(start: Start) -> None:
    faults: SimpleQueue[str] = SimpleQueue()
    port = start(address="192.0.2.1", on_fault=faults.put)
    line = f"test.address, test.port: cannot listen on 192.0.2.1 port {port}: Cannot assign requested address"
    assert faults.get(timeout=WAIT_SECONDS) == line
