"""Supervisor: owns the actors. It starts them in order, notices when one exits or is stuck, and restarts it.

In: ActorFailed (every actor), TickElapsed (own clock). Out: ActorsReported (its reporters).

An actor that was restarted asks its peers again for what it needs. Too many restarts of one actor are fatal: the
process exits with code 1, and the kubelet starts it again. Meanwhile the attached programs keep working with the maps
as they were written last.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pykka

from actors.framework.actor import AgentActor, clock
from actors.framework.messages import ActorFailed, ActorReport, ActorsReported, ActorState, Message, Ping, TickElapsed
from config.backoff import Backoff

_log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
STUCK_SECONDS = 5.0
"""An actor that has not answered a ping for this long is reported as stuck."""
RESTART_LIMIT = 10
RESTART_WINDOW_SECONDS = 60.0
_BACKOFF = Backoff(first=0.05, longest=5.0)
_START_SECONDS = 10.0
_STOP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ChildSpec:
    name: str
    """Class name of the actor, as in docs/architecture.md."""
    start: Callable[[], pykka.ActorRef[Any]]


@dataclass(slots=True)
class _Child:
    spec: ChildSpec
    ref: pykka.ActorRef[Any] | None = None
    restarts: int = 0
    planned_at: tuple[float, ...] = ()
    """time.monotonic() at which each restart within the window was planned."""
    restart_at: float | None = None
    """time.monotonic() of the restart that is due next; None while the actor runs."""
    ping: pykka.Future[object] | None = None
    pinged_at: float = 0.0


def within_window(times: Iterable[float], now: float) -> tuple[float, ...]:
    """Returns those of these times that RESTART_WINDOW_SECONDS before `now` include."""
    return tuple(each for each in times if each > now - RESTART_WINDOW_SECONDS)


def restart_delay(recent: int, jitter: float) -> float | None:
    """Returns the seconds to wait before the next restart, or None when one more restart would be too many.

    `recent` is the number of restarts within the window, and `jitter` is 0 to 1.
    """
    if recent >= RESTART_LIMIT:
        return None
    return _BACKOFF.seconds(recent + 1, jitter)


class Supervisor(AgentActor):
    """`reporters` are the names of the actors that receive ActorsReported. `on_fatal` is called with a reason, in any
    thread, when the supervisor gives up, fails, or is stopped."""

    HANDLERS: ClassVar[Mapping[type[Message], str]] = {ActorFailed: "_on_actor_failed", TickElapsed: "_on_tick_elapsed"}

    def __init__(
        self, *, specs: Sequence[ChildSpec], reporters: Sequence[str], on_fatal: Callable[[str], None]
    ) -> None:
        super().__init__()
        self._children = {spec.name: _Child(spec) for spec in specs}
        self._reporters = reporters
        self._on_fatal = on_fatal
        self._timers: list[threading.Timer] = []

    def started(self) -> None:
        for child in self._children.values():
            self._start(child)
            if child.ref is not None:
                try:
                    child.ref.ask(Ping(), timeout=_START_SECONDS)
                except (pykka.ActorDeadError, pykka.Timeout):
                    self._plan_restart(child)
        self._report()
        self.own(clock(self, TICK_SECONDS))

    def stopped(self) -> None:
        for timer in self._timers:
            timer.cancel()
        for child in reversed(self._children.values()):
            if child.ref is not None:
                try:
                    child.ref.stop(block=True, timeout=_STOP_SECONDS)
                except pykka.Timeout:
                    _log.warning("%s did not stop within %g s", child.spec.name, _STOP_SECONDS)
        self._on_fatal("the supervisor was stopped")

    def _failed(self, phase: str, error: BaseException | None) -> None:
        super()._failed(phase, error)
        self._on_fatal("the supervisor failed")

    def _on_actor_failed(self, message: ActorFailed) -> None:
        child = self._children.get(message.name)
        if child and child.restart_at is None:
            self._plan_restart(child)

    def _on_tick_elapsed(self, _message: TickElapsed) -> None:
        now = time.monotonic()
        for child in self._children.values():
            if child.restart_at is not None:
                if now >= child.restart_at:
                    self._restart(child)
            elif child.ref is None or not child.ref.is_alive():
                _log.error("%s exited unexpectedly", child.spec.name)
                self._plan_restart(child)
        self._report()
        # Last, so that the report does not count pings as messages that are waiting.
        for child in self._children.values():
            if child.restart_at is None and child.ref is not None:
                self._ping(child.ref, child, now)

    def _plan_restart(self, child: _Child) -> None:
        now = time.monotonic()
        child.planned_at = within_window(child.planned_at, now)
        delay = restart_delay(len(child.planned_at), random.random())  # noqa: S311  (jitter, no secret)
        if delay is None:
            limit = f"{RESTART_LIMIT} times within {RESTART_WINDOW_SECONDS:g} s"
            self._on_fatal(f"{child.spec.name} failed more than {limit}")
            return
        child.planned_at += (now,)
        child.restart_at = now + delay
        _log.warning("restarting %s in %.2f s", child.spec.name, delay)
        timer = threading.Timer(delay, self._wake)
        timer.daemon = True
        timer.start()
        self._timers = [each for each in self._timers if each.is_alive()] + [timer]

    def _wake(self) -> None:
        """Runs in a timer's thread, so that a restart does not wait for the next tick."""
        self.tell_self(TickElapsed())

    def _restart(self, child: _Child) -> None:
        child.restart_at = None
        child.ping = None
        if child.ref is not None and child.ref.is_alive():
            child.ref.stop(block=False)
        child.restarts += 1
        self._start(child)

    def _start(self, child: _Child) -> None:
        try:
            child.ref = child.spec.start()
        except Exception:  # noqa: BLE001  (whatever it is, it is logged and counted, and the start is retried)
            _log.exception("cannot start %s", child.spec.name)
            self._plan_restart(child)

    def _ping(self, ref: pykka.ActorRef[AgentActor], child: _Child, now: float) -> None:
        if child.ping is not None:
            try:
                child.ping.get(timeout=0)
            except pykka.Timeout:
                return  # no answer yet; _report calls the actor stuck when that lasts
            except pykka.ActorDeadError:
                pass  # the next tick notices that it is dead
        child.ping = ref.ask(Ping(), block=False)
        child.pinged_at = now

    def _report(self) -> None:
        mailbox = _waiting(self.actor_inbox)
        reports = [ActorReport(name=self.name, state=ActorState.RUNNING, restarts=0, mailbox=mailbox)]
        now = time.monotonic()
        for child in self._children.values():
            state = ActorState.RUNNING
            if child.restart_at is not None:
                state = ActorState.RESTARTING
            elif child.ping is not None and now - child.pinged_at > STUCK_SECONDS:
                state = ActorState.STUCK
            mailbox = _waiting(child.ref.actor_inbox) if child.ref is not None else 0
            reports.append(ActorReport(name=child.spec.name, state=state, restarts=child.restarts, mailbox=mailbox))
        for peer in self._reporters:
            self.send(peer, ActorsReported(actors=tuple(reports)))


def _waiting(inbox: object) -> int:
    """Returns the number of messages in an inbox. Pykka's type does not say that a threading actor's inbox is a
    queue."""
    return inbox.qsize() if isinstance(inbox, queue.Queue) else 0
