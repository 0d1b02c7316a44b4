"""What one check sends and receives, on a non-blocking socket of its own.

Each check has a new socket, so its port is random. The socket is connected, so it receives only from the Pod that is
checked, and the check fails at once if the Pod has no socket at that port.
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

_MAX_STRAYS = 64
"""How many datagrams may arrive that are not the reply: a Pod that floods us must not keep us from checking others."""
_MAX_DISCARDED = 64 * 1024
"""Bytes of an HTTP answer that are read after its status. Closing the socket earlier would reset the connection while
the server still sends."""


class CheckFailed(Exception):
    """Its text says what the check saw."""


class Exchange(ABC):
    events: ClassVar[int]
    """What to wait for, as in epoll_ctl(2)."""
    is_ready = False
    """Whether `proceed` can be called at once, before there is an event."""

    def __init__(self, opened: socket.socket) -> None:
        self.socket = opened
        self.succeeded = False
        self.remark = ""
        """Says what has arrived that is not an answer; "" if nothing has."""

    @abstractmethod
    def proceed(self) -> bool:
        """Call it when `is_ready` or an event says that the socket is ready. It sends and receives what is possible
        now, and sets `succeeded`. Returns whether the exchange is over. Raises CheckFailed, or OSError."""


class CheckRequest:
    """What a check sends, and where to; prepared once for all checks of one Pod."""

    def __init__(self, check: HealthCheck, address: Address) -> None:
        self.family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        self.peer = (str(address), check.port)
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

    def __init__(self, opened: socket.socket, request: CheckRequest) -> None:
        super().__init__(opened)
        self._question = request.message
        self._identifier = secrets.randbits(16)
        self._strays = 0
        opened.connect(request.peer)
        opened.send(dns_message.query(self._identifier, request.message))

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
                self.remark = "what it sent is not a reply to the question"
            if self._strays > _MAX_STRAYS:
                raise CheckFailed(self.remark)
        return True


class TcpExchange(Exchange):
    events: ClassVar[int] = select.EPOLLOUT

    def __init__(self, opened: socket.socket, request: CheckRequest) -> None:
        super().__init__(opened)
        error = opened.connect_ex(request.peer)
        if error not in (0, EINPROGRESS):
            raise OSError(error, os.strerror(error))
        # A Pod on this node has usually answered by now, and reading the outcome costs less than waiting for an event.
        self._outcome = opened.connect_ex(request.peer)
        self.is_ready = self._outcome != EALREADY

    def proceed(self) -> bool:
        self._check_connected()
        self.succeeded = True
        return True

    def _check_connected(self) -> None:
        """Call it when the socket is ready for the first time, and so knows its outcome. Raises OSError if it could not
        connect."""
        error = self._outcome
        if error == EALREADY:
            error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error not in (0, EISCONN):
            raise OSError(error, os.strerror(error))


class HttpExchange(TcpExchange):
    # Edge-triggered, since the socket is ready to send all the time and would wake the loop without end otherwise.
    events: ClassVar[int] = select.EPOLLIN | select.EPOLLOUT | select.EPOLLET

    def __init__(self, opened: socket.socket, request: CheckRequest) -> None:
        super().__init__(opened, request)
        self._unsent = request.message
        self._received = b""
        self._discarded = 0

    def proceed(self) -> bool:
        if self._unsent:
            self._check_connected()
            self.socket.send(self._unsent)  # the buffer of a new socket has room for all of it
            self._unsent = b""
        while True:
            try:
                data = self.socket.recv(4096)
            except BlockingIOError:
                return False
            if not self.succeeded:
                self._take(data)
            self._discarded += len(data)
            if not data or self._discarded > _MAX_DISCARDED:
                return True

    def _take(self, data: bytes) -> None:
        self._received += data
        try:
            status = http_message.status_of(self._received)
        except http_message.NotHttp:
            raise CheckFailed("the answer is not HTTP") from None
        if status is None and not data:
            raise CheckFailed("the connection was closed without an answer")
        if status is not None and not 200 <= status < 400:
            raise CheckFailed(f"the answer has status {status}")
        self.succeeded = status is not None
