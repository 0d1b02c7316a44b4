"""What every actor shares: dispatch by message type, sending by name, owned threads, and reporting its own failure.

Peers are addressed by name and looked up when a message is sent, so a restarted actor needs no rewiring. A message to
an actor that is not running is dropped, because every actor asks its peers for what it needs when it starts.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pykka

from actors.framework.messages import ActorFailed, Message, Ping, TickElapsed

_log = logging.getLogger(__name__)

SUPERVISOR = "Supervisor"
_JOIN_SECONDS = 2.0


class UnknownMessageError(Exception):
    """An actor received a message that its HANDLERS do not name, which is a bug."""


def send(name: str, message: Message) -> bool:
    """Sends to the running actor of that class name. Returns False when there is none."""
    for ref in pykka.ActorRegistry.get_by_class_name(name):
        try:
            ref.tell(message)
        except pykka.ActorDeadError:
            continue
        return True
    _log.debug("%s is not running; dropped %s", name, type(message).__name__)
    return False


class AgentActor(pykka.ThreadingActor):
    """Subclasses declare HANDLERS (message type -> name of the method) and may override `started` and `stopped`."""

    HANDLERS: ClassVar[Mapping[type[Message], str]] = {}
    use_daemon_thread = True

    def __init__(self) -> None:
        super().__init__()
        self._threads: list[OwnedThread] = []

    @property
    def name(self) -> str:
        return type(self).__name__

    def started(self) -> None:
        """Runs in the actor's thread before its first message."""

    def stopped(self) -> None:
        """Runs in the actor's thread after its last message, when its own threads have stopped. It also runs after a
        failure, except when `started` failed."""

    def send(self, name: str, message: Message) -> None:
        send(name, message)

    def tell_self(self, message: Message) -> bool:
        """Puts the message behind those that are waiting already. May be called in any thread. Returns False when the
        actor has stopped."""
        try:
            self.actor_ref.tell(message)
        except pykka.ActorDeadError:
            return False
        return True

    def own(self, thread: OwnedThread) -> None:
        """Starts a thread that lives until the actor stops."""
        self._threads.append(thread)
        thread.start()

    def on_receive(self, message: Any) -> object:
        if isinstance(message, Ping):
            return self.name
        handler = self.HANDLERS.get(type(message))
        if handler is None:
            msg = f"{self.name} has no handler for {type(message).__name__}"
            raise UnknownMessageError(msg)
        getattr(self, handler)(message)
        return None

    def on_start(self) -> None:
        # Pykka does not report an exception in on_start: the actor would be dead without anybody noticing.
        try:
            self.started()
        except Exception as error:
            self._stop_threads()
            self._failed("start", error)
            raise

    def on_stop(self) -> None:
        self._clean_up()

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: Any,
    ) -> None:
        del exception_type, traceback
        # Release what the actor holds (such as a port) before Supervisor starts the successor, which needs it.
        self._clean_up()
        self._failed("handle", exception_value)

    def thread_failed(self, error: BaseException) -> None:
        """Called in an owned thread that ended although nobody stopped it."""
        self._failed("thread", error)
        self.actor_ref.stop(block=False)

    def _failed(self, phase: str, error: BaseException | None) -> None:
        """`phase` is what failed: `start`, `handle` (handling a message) or `thread` (a thread that the actor owns)."""
        text = "".join(traceback.format_exception_only(error)).strip() if error else "unknown"
        _log.error("%s failed (%s): %s", self.name, phase, text, exc_info=error)
        send(SUPERVISOR, ActorFailed(name=self.name))

    def _clean_up(self) -> None:
        self._stop_threads()
        self.stopped()

    def _stop_threads(self) -> None:
        for thread in self._threads:
            thread.stop()


class OwnedThread:
    """A blocking loop in a thread that an actor owns. If the loop ends without being stopped, the actor failed."""

    def __init__(self, actor: AgentActor, name: str, run: Callable[[], None], stop: Callable[[], None]) -> None:
        self._actor = actor
        self._run = run
        self._stop = stop
        self._stopping = False
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._stop()
        if self._thread is not threading.current_thread():
            self._thread.join(_JOIN_SECONDS)

    def _main(self) -> None:
        try:
            self._run()
        except Exception as error:  # noqa: BLE001  (Supervisor is informed, and restarts the actor)
            if not self._stopping:
                self._actor.thread_failed(error)
            return
        if not self._stopping:
            self._actor.thread_failed(RuntimeError(f"thread {self._thread.name} ended by itself"))


def clock(actor: AgentActor, interval: float) -> OwnedThread:
    """Returns a thread that sends the actor a TickElapsed each `interval` seconds, without drift."""
    stopped = threading.Event()

    def run() -> None:
        due = time.monotonic() + interval
        while not stopped.wait(max(0.0, due - time.monotonic())):
            if not actor.tell_self(TickElapsed()):
                return
            # Ticks that were missed while the machine was suspended are skipped.
            due = max(due + interval, time.monotonic())

    return OwnedThread(actor, f"{actor.name}-clock", run, stopped.set)
