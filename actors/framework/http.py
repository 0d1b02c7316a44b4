"""A small HTTP server that an actor owns: fixed paths, each answered by a function."""

from __future__ import annotations

import logging
import os
import selectors
import socket
from collections.abc import Callable
from ipaddress import ip_address

from actors.framework.http_connections import ConnectionLoop
from actors.framework.http_exchange import Routes

_log = logging.getLogger(__name__)

_BACKLOG = 512
_RETRY_SECONDS = 1.0


def _ignore(_fault: str) -> None:
    pass


class HttpServer:
    """`run` blocks in the owner's thread until `stop`.

    An address that the server cannot listen on does not end the process, since nothing else depends on it: the server
    logs the fault once and retries each second. `on_fault` is called after each attempt, in any thread, with the
    reason for the failure, or with "" when the server listens.
    """

    def __init__(
        self, *, section: str, address: str, port: int, routes: Routes, on_fault: Callable[[str], None] = _ignore
    ) -> None:
        """`section` is the part of the configuration that the address comes from, for messages."""
        self._section = section
        self._address = address
        self._port = port
        self._routes = routes
        self._on_fault = on_fault
        self._fault = ""
        self._stop_writer, self._stop_reader = socket.socketpair()
        self._listener = self._try_to_listen()

    def run(self) -> None:
        with self._stop_reader, selectors.DefaultSelector() as selector:
            selector.register(self._stop_reader, selectors.EVENT_READ)
            while self._listener is None:
                if selector.select(_RETRY_SECONDS):
                    return
                self._listener = self._try_to_listen()
            with self._listener:
                ConnectionLoop(self._section, selector, self._listener, self._routes).run(self._stop_reader)

    def stop(self) -> None:
        """Takes effect at once, because the actor's successor needs the port."""
        self._stop_writer.close()

    def _try_to_listen(self) -> socket.socket | None:
        keys = f"{self._section}.address, {self._section}.port"
        try:
            listener = _listen(self._address, self._port)
        except OSError as error:
            # Not str(error), which would repeat the address.
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            fault = f"{keys}: cannot listen on {self._address} port {self._port}: {reason}"
            if fault != self._fault:
                _log.warning("%s; retrying each second, everything else keeps running", fault)
            self._fault = fault
            self._on_fault(fault)
            return None
        if self._fault:
            _log.info("%s: now listening on %s port %d", keys, self._address, self._port)
        self._fault = ""
        self._on_fault("")
        return listener


def _listen(address: str, port: int) -> socket.socket:
    """0.0.0.0 and :: both mean all addresses of both families, since a node may have IPv6 only, or no IPv6 at all."""
    if ip_address(address).is_unspecified:
        both = socket.has_dualstack_ipv6()
        address, family = ("::", socket.AF_INET6) if both else ("0.0.0.0", socket.AF_INET)
    else:
        both, family = False, socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    listener.setblocking(False)
    return listener
