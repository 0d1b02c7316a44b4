"""Stand-ins for the peers of an actor under test, and the means to wait for their messages."""

from __future__ import annotations

import http.client
import socket
from queue import SimpleQueue
from typing import Any

import pykka

from actors.framework.messages import Message, Ping

WAIT_SECONDS = 10.0


class _Recorder(pykka.ThreadingActor):
    use_daemon_thread = True

    def __init__(self, heard: SimpleQueue[Message]) -> None:
        super().__init__()
        self._heard = heard

    def on_receive(self, message: Any) -> None:
        if not isinstance(message, Ping):
            self._heard.put(message)


class Peer:
    """Runs under the name of another actor and keeps the messages that it receives."""

    def __init__(self, name: str) -> None:
        self._queue: SimpleQueue[Message] = SimpleQueue()
        kind: type[_Recorder] = type(name, (_Recorder,), {})
        self.ref = kind.start(self._queue)

    def next(self) -> Message:
        """Returns the next message, and waits for it if necessary."""
        return self._queue.get(timeout=WAIT_SECONDS)

    def heard(self) -> list[Message]:
        """Returns all messages that were sent before this call and were not returned yet."""
        fence(self.ref)
        return [self._queue.get() for _ in range(self._queue.qsize())]


def fence(ref: pykka.ActorRef[Any]) -> None:
    """Returns when the actor has handled every message that was sent to it before."""
    ref.ask(Ping(), timeout=WAIT_SECONDS)


def wait_until_dead(ref: pykka.ActorRef[Any]) -> None:
    assert ref.actor_stopped.wait(WAIT_SECONDS)


def http_get(port: int, path: str, method: str = "GET", address: str = "127.0.0.1") -> tuple[int, bytes]:
    """Status and body of the answer. Raises ConnectionRefusedError if nobody listens."""
    connection = http.client.HTTPConnection(address, port, timeout=WAIT_SECONDS)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def free_port() -> int:
    """A TCP port of 127.0.0.1 at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
