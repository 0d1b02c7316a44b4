"""The kernel's sock_diag (netlink): lists the connected sockets of a network namespace, and closes one of them.

Closing is SOCK_DESTROY (kernel 4.5; CONFIG_INET_DIAG_DESTROY). The socket is disconnected, and its program gets an
error, as if the network had failed: ECONNABORTED from a call that waits or comes next, then EDESTADDRREQ or
EPIPE. The program that owns it still has to close its descriptor.

Formats are those of the kernel's include/uapi/linux/netlink.h, sock_diag.h and inet_diag.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple, Self

from bpf.maps.packing import unpack_address
from config.domain.addresses import Address, Endpoint, Protocol

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_SOCK_DESTROY = 21
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 0x1, 0x4, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_ESTABLISHED, _SYN_SENT = 1, 2
"""From the kernel's net/tcp_states.h; a connected UDP socket counts as established."""
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBxI48s")
"""struct inet_diag_req_v2: family, protocol, extensions, states, identity."""
_LISTED = struct.Struct("=BBBB48s20x")
"""struct inet_diag_msg: family, state, timer, retransmissions, identity, and what we don't read."""
_IDENTITY = struct.Struct("!HH16s16s4x8s")
"""struct inet_diag_sockid: local port, peer's port, local address, peer's address, interface, cookie."""
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_BUFFER = 1 << 16
"""The kernel fills messages of at most 32 KiB."""
_TIMEOUT = 10.0
"""Seconds. The kernel answers within the call; without an answer, something is wrong for good."""


class ConnectedSocket(NamedTuple):
    protocol: Protocol
    local: Endpoint
    peer: Endpoint
    """For an IPv6 socket that uses mapped addresses, these two are IPv4 addresses."""
    family: int
    identity: bytes
    """struct inet_diag_sockid. Its cookie distinguishes this socket from a later one with the same addresses."""


class SockDiag:
    """A netlink socket. It sees the network namespace that this thread was in when it made the object."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
        self._socket.settimeout(_TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def connected(self, protocol: Protocol) -> Iterator[ConnectedSocket]:
        """Sockets that are connected or connecting. One that changes meanwhile may be missing, or come twice.

        Raises OSError: ENOENT when the kernel cannot list sockets of this protocol.
        """
        for family in _FAMILIES:
            request = _REQUEST.pack(family, protocol.number, 0, 1 << _ESTABLISHED | 1 << _SYN_SENT, bytes(48))
            self._send(_SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | _NLM_F_DUMP, request)
            for body in self._answers():
                *_, identity = _LISTED.unpack_from(body)
                yield _connected_socket(protocol, family, identity)

    def destroy(self, closed: ConnectedSocket) -> bool:
        """Closes the socket. False when it is already closed or connected elsewhere.

        Raises OSError: EPERM without CAP_NET_ADMIN, EOPNOTSUPP when the kernel cannot close sockets.
        """
        request = _REQUEST.pack(closed.family, closed.protocol.number, 0, 0, closed.identity)
        self._send(_SOCK_DESTROY, _NLM_F_REQUEST | _NLM_F_ACK, request)
        try:
            for _ in self._answers():
                pass
        except FileNotFoundError:
            return False
        return True

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 0, 0) + body)

    def _answers(self) -> Iterator[bytes]:
        """Bodies of the messages that answer the last request, until its end."""
        while True:
            received = self._socket.recv(_BUFFER)
            start = 0
            while start < len(received):
                length, kind, *_ = _HEADER.unpack_from(received, start)
                body = received[start + _HEADER.size : start + length]
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    (number,) = struct.unpack_from("=i", body)
                    if number:
                        raise OSError(-number, f"sock_diag: {os.strerror(-number)}")
                    return
                yield body
                start += length + 3 & ~3


def _connected_socket(protocol: Protocol, family: int, identity: bytes) -> ConnectedSocket:
    local_port, peer_port, local, peer, _ = _IDENTITY.unpack(identity)
    return ConnectedSocket(
        protocol=protocol,
        local=Endpoint(_address(family, local), local_port),
        peer=Endpoint(_address(family, peer), peer_port),
        family=family,
        identity=identity,
    )


def _address(family: int, raw: bytes) -> Address:
    """The address of an IPv4 socket is in the first of the four words."""
    return unpack_address(raw if family == socket.AF_INET6 else bytes(10) + b"\xff\xff" + raw[:4])


def check_that_sockets_can_be_closed() -> None:
    """Makes a socket and closes it. Raises OSError, which says what this process or this kernel lacks."""
    with SockDiag() as diag, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as victim:
        victim.connect(("127.0.0.1", 9))
        own = victim.getsockname()[1]
        found = [each for each in diag.connected(Protocol.UDP) if each.local.port == own]
        if not any(map(diag.destroy, found)):
            raise OSError(errno.ENOENT, "sock_diag does not find a UDP socket of this process")
