"""The loop of health checks, on real sockets of the loopback interface."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from queue import SimpleQueue
from typing import Any, Self

import pytest

from actors.framework.messages import Message
from actors.health import check_loop
from actors.health.check_loop import CheckLoop
from actors.health.exchanges import CheckRequest
from actors.messages.checks import CheckedPod, ChecksSelected, HealthChanged, HealthChecksCounted, PolicyChecks
from config.domain.checks import DnsProbe, HealthCheck, HttpProbe, Probe, TcpProbe
from config.domain.ids import NamespacedName
from tests.unit.objects import KEY
from tests.unit.peers import WAIT_SECONDS, free_port

DNS, TCP, HTTP = DnsProbe(name=".", type="NS"), TcpProbe(), HttpProbe(path="/")
LOOPBACK = "127.0.0.1"


def check(probe: Probe, port: int, **fields: Any) -> HealthCheck:
    made = HealthCheck(probe=probe, port=port, interval=0.25, timeout=0.25, failure_threshold=1, success_threshold=1)
    return replace(made, **fields)


class Running:
    """A loop in a thread of its own, and the messages that it sends."""

    def __init__(self) -> None:
        self._messages: SimpleQueue[Message] = SimpleQueue()
        self.loop = CheckLoop(self._messages.put)
        self.successes = self.failures = 0
        self._thread = threading.Thread(target=self.loop.run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.stop()
        self._thread.join(WAIT_SECONDS)
        assert not self._thread.is_alive()

    def select(self, wanted: HealthCheck | None, *addresses: str, complete: bool = False, why: str = "") -> None:
        pods = tuple(
            CheckedPod(key=NamespacedName("ns", address), uid="u", address=ip_address(address), why_out_of_use=why)
            for address in addresses
        )
        self.loop.select(ChecksSelected(complete=complete, policies=(PolicyChecks(key=KEY, check=wanted, pods=pods),)))

    def finding(self) -> str:
        """Why the next Pod whose health changes is out of use; "" if it is in use again."""
        while True:
            message = self._messages.get(timeout=WAIT_SECONDS)
            if isinstance(message, HealthChanged):
                return message.why_out_of_use
            self._count(message)

    def counted(self, successes: int = 0, failures: int = 0) -> None:
        """Returns when so many were counted in all."""
        while self.successes < successes or self.failures < failures:
            message = self._messages.get(timeout=WAIT_SECONDS)
            assert not isinstance(message, HealthChanged), message
            self._count(message)

    def _count(self, message: Message) -> None:
        assert isinstance(message, HealthChecksCounted)
        (count,) = message.counts
        assert count.policy == KEY
        self.successes += count.successes
        self.failures += count.failures


@pytest.fixture
def running() -> Iterator[Running]:
    with Running() as made:
        yield made


@contextmanager
def server(
    kind: socket.SocketKind, answer: Callable[[socket.socket], object], address: str = LOOPBACK
) -> Iterator[int]:
    """A port; `answer` is called again and again with its socket, until it fails because that is closed."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as listener:
        listener.bind((address, 0))
        if kind == socket.SOCK_STREAM:
            listener.listen()
        listener.settimeout(0.05)
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                try:
                    answer(listener)
                except TimeoutError:
                    continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            over.set()
            thread.join(WAIT_SECONDS)


def dns(answers: Callable[[bytes], list[bytes]]) -> Callable[[socket.socket], None]:
    def answer(listener: socket.socket) -> None:
        query, client = listener.recvfrom(512)
        for each in answers(query):
            listener.sendto(each, client)

    return answer


def reply(query: bytes) -> list[bytes]:
    return [query[:2] + b"\x81\x80" + query[4:]]


def http(text: bytes) -> Callable[[socket.socket], None]:
    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(text)

    return answer


@pytest.mark.parametrize("address", [LOOPBACK, "::1"])
def test_checks_go_on_and_are_counted(running: Running, address: str) -> None:
    with server(socket.SOCK_DGRAM, dns(reply), address) as port:
        running.select(check(DNS, port), address)
        running.counted(successes=5)
        assert running.failures == 0


@pytest.mark.parametrize("probe", [DNS, TCP, HTTP], ids=["dns", "tcp", "http"])
def test_a_port_at_which_nobody_listens_fails_the_check(running: Running, probe: Probe) -> None:
    port = free_port()
    running.select(check(probe, port), LOOPBACK)
    assert running.finding().endswith(f"check of port {port} failed: Connection refused")


def test_an_answer_that_does_not_come_in_time_fails_the_check(running: Running) -> None:
    with server(socket.SOCK_DGRAM, dns(lambda _query: [])) as port:
        running.select(check(DNS, port, timeout=0.05), LOOPBACK)
        assert running.finding() == f"its dns check of port {port} failed: no answer within 50 ms"


def test_a_flood_of_datagrams_that_are_no_reply_fails_the_check(running: Running) -> None:
    with server(socket.SOCK_DGRAM, dns(lambda query: [query] * 100)) as port:
        running.select(check(DNS, port, interval=1.0, timeout=1.0), LOOPBACK)
        assert running.finding().endswith("failed: what it sent is not a reply to the question")


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (b"HTTP/1.1 500 No\r\n\r\n", "the answer has status 500"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", "the answer has status 103"),
        (b"220 mail.example ESMTP\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1", "the connection was closed without an answer"),
        (b"", "the connection was closed without an answer"),
    ],
)
def test_an_http_answer_that_is_no_success_fails_the_check(running: Running, text: bytes, seen: str) -> None:
    with server(socket.SOCK_STREAM, http(text)) as port:
        running.select(check(HTTP, port, interval=0.3, timeout=0.3), LOOPBACK)
        assert running.finding() == f"its http check of port {port} failed: {seen}"


@pytest.mark.parametrize("text", [b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 40_000, b"HTTP/1.0 399 -\r\n"])
def test_http_answers_that_are_a_success_are_received_whole(running: Running, text: bytes) -> None:
    with server(socket.SOCK_STREAM, http(text)) as port:
        running.select(check(HTTP, port, interval=0.2, timeout=0.2), LOOPBACK)
        running.counted(successes=3)
        assert running.failures == 0


def test_an_answer_that_never_ends_is_a_success_and_not_waited_for(running: Running) -> None:
    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            try:
                while True:
                    connection.sendall(b"x" * 1000)
            except OSError:
                return

    with server(socket.SOCK_STREAM, drip) as port:
        running.select(check(HTTP, port), LOOPBACK)
        running.counted(successes=3)


def test_a_check_without_a_descriptor_has_failed(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(_request: CheckRequest) -> None:
        raise OSError(errno.EMFILE, "")

    with monkeypatch.context() as patched:
        patched.setattr(CheckRequest, "begin", begin)
        running.select(check(DNS, 53), LOOPBACK)
        assert running.finding() == "its dns check of port 53 failed: it cannot be sent (Too many open files)"


def test_a_pod_that_is_no_longer_selected_is_no_longer_checked(running: Running) -> None:
    asked: SimpleQueue[bytes] = SimpleQueue()

    def note(query: bytes) -> list[bytes]:
        asked.put(query)
        return []

    with server(socket.SOCK_DGRAM, dns(note)) as port:
        running.select(check(DNS, port, interval=0.1, timeout=0.1, failure_threshold=100), LOOPBACK)
        asked.get(timeout=WAIT_SECONDS)
        running.select(None, complete=True)
        with server(socket.SOCK_DGRAM, dns(reply)) as other:
            running.select(check(DNS, other), LOOPBACK)
            running.counted(successes=5)
        assert asked.qsize() <= 1


def test_counts_are_sent_when_a_policy_goes_so_that_no_later_one_of_its_name_gets_them(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_loop, "COUNT_SECONDS", 3600.0)
    asked: SimpleQueue[bytes] = SimpleQueue()

    def note(query: bytes) -> list[bytes]:
        asked.put(query)
        return reply(query)

    with server(socket.SOCK_DGRAM, dns(note)) as port:
        running.select(check(DNS, port), LOOPBACK)
        running.counted(successes=1)
        for _ in range(4):  # the third check has ended when the fourth is made
            asked.get(timeout=WAIT_SECONDS)
        running.select(None, complete=True)
        running.counted(successes=3)


def test_a_finding_that_the_resolver_does_not_know_is_sent_again(running: Running) -> None:
    port = free_port()
    wanted = check(TCP, port, interval=300.0, timeout=300.0)
    running.select(wanted, LOOPBACK, why="it hung")
    running.select(wanted, LOOPBACK, complete=True)
    assert running.finding() == "it hung"


def test_many_pods_are_checked_independently(running: Running) -> None:
    addresses = [f"127.0.1.{number}" for number in range(1, 101)]
    servers: list[socket.socket] = []
    for address in addresses:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.bind((address, 0 if not servers else servers[0].getsockname()[1]))
        made.listen()
        servers.append(made)
    running.select(check(TCP, servers[0].getsockname()[1], interval=0.3, timeout=0.3), *addresses)
    running.counted(successes=200)
    assert running.failures == 0
    servers[7].close()
    assert running.finding().endswith("Connection refused")
    for each in servers:
        each.close()


def test_without_checks_the_loop_waits_until_it_is_stopped() -> None:
    with Running() as running:
        running.select(None)
        running.loop.stop()
        running._thread.join(WAIT_SECONDS)
        running.select(None)  # does no harm
