"""What one check sends and receives, on a non-blocking socket of its own.

A new socket for each check has a random port. It is connected, so it hears only the address that was asked, and hears
at once that nobody listens there.
"""

from __future__ import annotations

import os
import secrets
import select
import socket
from abc import ABC, abstractmethod
from errno import EALREADY, EINPROGRESS, EISCONN
from typing import ClassVar

from actors.health import dns_message, http_message
from config.domain.addresses import Address, Endpoint
from config.domain.checks import DnsProbe, HealthCheck, HttpProbe

_MOST_STRAYS = 64
"""Datagrams to one check that are no reply to it: a Pod that floods us must not keep us from checking others."""
_MOST_DISCARDED = 64 * 1024
"""Bytes of an HTTP answer that are read after its status, so that the server meets no reset while it sends them."""


class CheckFailed(Exception):
    """Its text says what the check saw."""


class Exchange(ABC):
    events: ClassVar[int]
    """What to wait for, as in epoll_ctl(2)."""
    is_ready = False
    """Whether `proceed` need not wait for the first event."""

    def __init__(self, opened: socket.socket) -> None:
        self.socket = opened
        self.succeeded = False
        self.remark = ""
        """What has been seen that is no answer; "" for nothing."""

    @abstractmethod
    def proceed(self) -> bool:
        """To be called when `is_ready` or an event says that the socket is ready. Does what it can, and sets
        `succeeded`. Returns whether the exchange is over. Raises CheckFailed, or OSError."""


class Asked:
    """Whom a check asks, and what; prepared once for all checks of one Pod."""

    def __init__(self, check: HealthCheck, address: Address) -> None:
        self.family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        self.target = (str(address), check.port)
        self.message = b""
        self._kind: type[DnsExchange | TcpExchange | HttpExchange] = TcpExchange
        if isinstance(check.probe, DnsProbe):
            self._kind = DnsExchange
            self.message = dns_message.question(check.probe.name, check.probe.type)
        elif isinstance(check.probe, HttpProbe):
            self._kind = HttpExchange
            self.message = http_message.request(Endpoint(address, check.port), check.probe.path)

    def begin(self) -> Exchange:
        """Sends what there is to send. Raises OSError when that is not possible."""
        transport = socket.SOCK_DGRAM if self._kind is DnsExchange else socket.SOCK_STREAM
        opened = socket.socket(self.family, transport | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            return self._kind(opened, self)
        except BaseException:
            opened.close()
            raise


class DnsExchange(Exchange):
    events: ClassVar[int] = select.EPOLLIN

    def __init__(self, opened: socket.socket, asked: Asked) -> None:
        super().__init__(opened)
        self._question = asked.message
        self._identifier = secrets.randbits(16)
        self._strays = 0
        opened.connect(asked.target)
        opened.send(dns_message.query(self._identifier, asked.message))

    def proceed(self) -> bool:
        while not self.succeeded:
            try:
                datagram = self.socket.recv(512)
            except BlockingIOError:
                return False
            if dns_message.is_reply(datagram, self._identifier, self._question):
                self.succeeded = True
            else:
                self._strays += 1
                self.remark = "what it sent is no reply to the question"
            if self._strays > _MOST_STRAYS:
                raise CheckFailed(self.remark)
        return True


class TcpExchange(Exchange):
    events: ClassVar[int] = select.EPOLLOUT

    def __init__(self, opened: socket.socket, asked: Asked) -> None:
        super().__init__(opened)
        error = opened.connect_ex(asked.target)
        if error not in (0, EINPROGRESS):
            raise OSError(error, os.strerror(error))
        # The kernel of a Pod on this node has usually answered by now. Asking for the outcome costs less than an event.
        self._outcome = opened.connect_ex(asked.target)
        self.is_ready = self._outcome != EALREADY

    def proceed(self) -> bool:
        self._connected()
        self.succeeded = True
        return True

    def _connected(self) -> None:
        """The socket became ready for the first time: it is connected, or it never will be."""
        error = self._outcome
        if error == EALREADY:
            error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error not in (0, EISCONN):
            raise OSError(error, os.strerror(error))


class HttpExchange(TcpExchange):
    # Edges: it is ready to send all the time.
    events: ClassVar[int] = select.EPOLLIN | select.EPOLLOUT | select.EPOLLET

    def __init__(self, opened: socket.socket, asked: Asked) -> None:
        super().__init__(opened, asked)
        self._unsent = asked.message
        self._received = b""
        self._discarded = 0

    def proceed(self) -> bool:
        if self._unsent:
            self._connected()
            self.socket.send(self._unsent)  # a new socket has room for it
            self._unsent = b""
        while True:
            try:
                data = self.socket.recv(4096)
            except BlockingIOError:
                return False
            if not self.succeeded:
                self._take(data)
            self._discarded += len(data)
            if not data or self._discarded > _MOST_DISCARDED:
                return True

    def _take(self, data: bytes) -> None:
        self._received += data
        try:
            status = http_message.status_of(self._received)
        except http_message.NoHttp:
            raise CheckFailed("the answer is no HTTP") from None
        if status is None and not data:
            raise CheckFailed("the connection was closed without an answer")
        if status is not None and not 200 <= status < 400:
            raise CheckFailed(f"the answer has status {status}")
        self.succeeded = status is not None
