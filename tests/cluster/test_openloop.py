"""openloop counts what a server does to its clients. The server here is in Python; each test chooses its answers."""

from __future__ import annotations

import contextlib
import random
import selectors
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.cluster import binaries
from tests.cluster.load import Result, parse
from tests.lab.processes import wait_until

RATE = 200
TIMEOUT_MS = 300
TCP_LOOKUPS = 5
"""As many as openloop makes in half a second. While the server refuses UDP, only these reach it."""


def good(query: bytes) -> list[bytes]:
    """No record, and no error."""
    return [query[:2] + b"\x81\x80" + query[4:]]


def servfail(query: bytes) -> list[bytes]:
    return [query[:2] + b"\x81\x82" + query[4:]]


def nothing(_: bytes) -> list[bytes]:
    return []


def strays_first(query: bytes) -> list[bytes]:
    """Two replies that do not belong to the query, with another id and with another question; then the answer."""
    return [
        bytes([query[0] ^ 1, query[1]]) + good(query)[0][2:],
        good(query)[0].replace(b"\x01a", b"\x01b"),
        *good(query),
    ]


def listening_socket() -> socket.socket:
    """The kernel gives its port to no client. Otherwise one of openloop's sockets could get the server's UDP port while
    that is closed."""
    lowest, _ = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    while True:
        with contextlib.suppress(OSError):  # the port is in use
            return socket.create_server(("127.0.0.1", random.randrange(1024, lowest)))


class Server:
    """DNS over UDP and TCP at one port of loopback. `answer` may be replaced while it serves; while `listens` is false
    the kernel refuses what clients send over UDP."""

    def __init__(self) -> None:
        self.answer: Callable[[bytes], list[bytes]] = good
        self.listens = True
        self.asked = 0
        self._tcp = listening_socket()
        self.address = self._tcp.getsockname()
        self._udp: socket.socket | None = None
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._tcp, selectors.EVENT_READ)
        self._listen()
        self._closing = False
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        self._thread.join()
        self.listens = False
        self._listen()
        self._selector.close()
        self._tcp.close()

    def _listen(self) -> None:
        """Opens or closes the UDP socket, as `listens` says."""
        if self.listens and not self._udp:
            self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._udp.bind(self.address)
            self._selector.register(self._udp, selectors.EVENT_READ)
        if not self.listens and self._udp:
            self._selector.unregister(self._udp)
            self._udp.close()
            self._udp = None

    def _serve(self) -> None:
        while not self._closing:
            self._listen()
            for key, _ in self._selector.select(0.01):
                self.asked += 1
                if key.fileobj is self._tcp:
                    self._serve_tcp()
                else:
                    self._serve_udp()

    def _serve_udp(self) -> None:
        assert self._udp
        query, client = self._udp.recvfrom(4096)
        for reply in self.answer(query):
            self._udp.sendto(reply, client)

    def _serve_tcp(self) -> None:
        connection, _ = self._tcp.accept()
        with connection:
            replies = self.answer(connection.recv(4096)[2:])
            connection.sendall(b"".join(len(each).to_bytes(2, "big") + each for each in replies))


class OpenLoop:
    """Context manager; `result` is valid after it."""

    result: Result

    def __init__(self, server: Server, *, rate: int = RATE, kept: int = 0, quiet: int = 0, begins: bool = True) -> None:
        """`begins`: the context is entered only when everything has had its first answer."""
        self._begins = begins
        address, port = server.address
        options = {"rate": rate, "kept": kept, "quiet": quiet, "timeout-ms": TIMEOUT_MS, "kept-rate": 20}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        command = [str(binaries.openloop()), f"{address}:{port}", "a.test", *words]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        if self._begins:
            self.await_asking()
        return self

    def await_asking(self) -> None:
        assert self._process.stdout
        assert self._process.stdout.readline() == "asking\n"

    def ask_quiet(self) -> None:
        self._process.send_signal(signal.SIGUSR1)

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self.result = parse(self._process.communicate(timeout=10)[0])


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        yield made


def wait_asked(server: Server, queries: int) -> None:
    """Returns when the server has had so many more queries."""
    enough = server.asked + queries
    wait_until(lambda: server.asked >= enough, f"{queries} queries", 10)


def test_every_answer_is_counted_over_udp_and_tcp(server: Server) -> None:
    with OpenLoop(server, kept=2, quiet=2) as load:
        wait_asked(server, RATE)
    result = load.result
    assert (result.lookups.unanswered, result.kept.unanswered, result.quiet.unanswered) == (0, 0, 0)
    assert result.lookups.sent == result.udp.sent + result.udp_connected.sent + result.tcp.sent >= 0.7 * RATE
    assert min(result.udp.sent, result.udp_connected.sent) > 5 * result.tcp.sent > 0
    assert result.kept.sent > result.quiet.sent == 2


def test_a_quiet_socket_whose_first_query_is_lost_asks_until_it_has_an_answer(server: Server) -> None:
    server.answer = nothing
    with OpenLoop(server, quiet=3, begins=False) as load:
        wait_asked(server, RATE)
        server.answer = good
        load.await_asking()
    assert load.result.quiet.answered == 3
    assert load.result.quiet.silent == 0


def test_silence_delays_no_lookup_and_is_measured(server: Server) -> None:
    with OpenLoop(server) as load:
        server.answer = nothing
        wait_asked(server, RATE)  # as many as in a second
        server.answer = good
        wait_asked(server, 20)
    lookups = load.result.lookups
    assert lookups.unanswered >= 0.8 * RATE
    assert lookups.longest_silence_ms >= 0.9 * 1000 * lookups.unanswered / RATE
    assert lookups.reasons == {"timeout": lookups.unanswered - load.result.tcp.unanswered, **load.result.tcp.reasons}
    assert load.result.tcp.reasons.keys() == {"closed"}


def test_a_reply_to_another_question_is_no_answer(server: Server) -> None:
    server.answer = strays_first
    with OpenLoop(server, kept=1) as load:
        wait_asked(server, RATE)
        server.answer = lambda query: strays_first(query)[:2]
        wait_asked(server, RATE)
    assert load.result.udp.reasons["timeout"] >= 0.3 * RATE
    assert load.result.udp_connected.reasons["timeout"] >= 0.3 * RATE
    assert load.result.kept.reasons.keys() == {"timeout"}
    assert load.result.lookups.answered >= 0.7 * RATE


def test_refusals_and_failures_are_counted_by_name(server: Server) -> None:
    with OpenLoop(server) as load:
        server.answer = servfail
        wait_asked(server, RATE // 2)
        server.listens = False
        wait_asked(server, TCP_LOOKUPS)
    assert load.result.tcp.reasons.keys() == {"rcode 2"}
    assert load.result.udp.reasons.keys() == {"rcode 2", "timeout"}
    assert load.result.udp_connected.reasons.keys() == {"rcode 2", "ECONNREFUSED"}


def test_a_kept_socket_that_is_refused_gets_the_error_and_opens_another(server: Server) -> None:
    with OpenLoop(server, kept=1) as load:
        server.listens = False
        wait_asked(server, TCP_LOOKUPS)
        server.listens = True
        wait_asked(server, RATE // 2)
    kept = load.result.kept
    assert kept.reasons.keys() == {"ECONNREFUSED"}
    assert kept.longest_silence_ms >= kept.slowest_recovery_ms >= 300
    assert kept.longest_unnoticed_ms < kept.longest_silence_ms
    assert kept.silent == 0


def test_a_kept_socket_that_stays_silent_is_counted_as_such(server: Server) -> None:
    with OpenLoop(server, kept=2, quiet=3) as load:
        server.answer = nothing
        load.ask_quiet()
        wait_asked(server, RATE)
    assert (load.result.kept.silent, load.result.quiet.silent) == (2, 3)
    assert load.result.quiet.longest_unnoticed_ms >= 500
