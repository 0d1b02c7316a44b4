"""What all actors share: dispatch, addressing by name, owned threads, and the report of a failure."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import ClassVar

import pytest

from actors.framework.actor import AgentActor, OwnedThread, clock, send
from actors.framework.messages import ActorFailed, Message, Ping, TickElapsed
from actors.messages.resync import ResyncSource
from actors.resolving.conflict_resolver import Flush
from tests.unit.peers import WAIT_SECONDS, Peer, fence, wait_until_dead


class Example(AgentActor):
    """Passes each message to `handle`; `start` runs at its start, and `stop` when it has stopped."""

    HANDLERS: ClassVar[Mapping[type[Message], str]] = {Flush: "_on_any", TickElapsed: "_on_any"}

    def __init__(
        self,
        handle: Callable[[Message], None] = lambda _: None,
        start: Callable[[AgentActor], None] = lambda _: None,
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self._handle, self._start, self._stop_hook = handle, start, stop

    def started(self) -> None:
        self._start(self)

    def stopped(self) -> None:
        self._stop_hook()

    def _on_any(self, message: Message) -> None:
        self._handle(message)


def fail(*_: object) -> None:
    raise ValueError("out of luck")


def _failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What actors logged about their failures; they do so before Supervisor hears of them."""
    records = [each for each in caplog.records if each.name == "actors.framework.actor"]
    return [each.getMessage() for each in records if each.levelno == logging.ERROR]


def test_a_message_reaches_the_handler_of_its_type() -> None:
    handled: list[Message] = []
    ref = Example.start(handled.append)
    ref.tell(Flush())
    fence(ref)
    assert handled == [Flush()]


def test_a_ping_is_answered_with_the_name() -> None:
    assert Example.start().ask(Ping(), timeout=WAIT_SECONDS) == "Example"


@pytest.mark.usefixtures("expects_failures")
def test_a_message_of_an_unknown_type_is_a_failure_that_names_it(caplog: pytest.LogCaptureFixture) -> None:
    supervisor = Peer("Supervisor")
    ref = Example.start()
    ref.tell(ResyncSource())
    assert supervisor.next() == ActorFailed(name="Example")
    (line,) = _failures(caplog)
    assert line.startswith("Example failed (handle): ")
    assert line.endswith("Example has no handler for ResyncSource")
    wait_until_dead(ref)


@pytest.mark.usefixtures("expects_failures")
@pytest.mark.parametrize(
    ("phase", "example"),
    [
        ("start", lambda: Example.start(start=fail)),
        ("handle", lambda: Example.start(handle=fail).tell(Flush())),
        ("thread", lambda: Example.start(start=lambda actor: actor.own(OwnedThread(actor, "t", fail, lambda: None)))),
    ],
)
def test_the_supervisor_hears_once_of_any_failure_and_the_log_says_what_failed(
    phase: str, example: Callable[[], object], caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = Peer("Supervisor")
    example()
    assert supervisor.next() == ActorFailed(name="Example")
    assert supervisor.heard() == []
    assert _failures(caplog) == [f"Example failed ({phase}): ValueError: out of luck"]


def test_a_thread_that_ends_by_itself_ends_its_actor(caplog: pytest.LogCaptureFixture) -> None:
    supervisor = Peer("Supervisor")
    ref = Example.start(start=lambda actor: actor.own(OwnedThread(actor, "reader", lambda: None, lambda: None)))
    assert supervisor.next() == ActorFailed(name="Example")
    assert _failures(caplog) == ["Example failed (thread): RuntimeError: thread reader ended by itself"]
    wait_until_dead(ref)


def test_a_thread_is_stopped_and_joined_before_its_actor_has_stopped() -> None:
    supervisor = Peer("Supervisor")
    stop, events = threading.Event(), list[str]()

    def run() -> None:
        stop.wait(WAIT_SECONDS)
        events.append("thread ended")

    ref = Example.start(
        start=lambda actor: actor.own(OwnedThread(actor, "reader", run, stop.set)),
        stop=lambda: events.append("stopped"),
    )
    ref.stop(timeout=WAIT_SECONDS)
    assert events == ["thread ended", "stopped"]
    assert supervisor.heard() == []


@pytest.mark.usefixtures("expects_failures")
@pytest.mark.parametrize("phase", ["start", "handle"])
def test_a_failed_actor_stops_its_threads_before_the_supervisor_hears_of_it(phase: str) -> None:
    supervisor = Peer("Supervisor")
    stop = threading.Event()

    def run() -> None:
        stop.wait(WAIT_SECONDS)

    def start(actor: AgentActor) -> None:
        actor.own(OwnedThread(actor, "reader", run, stop.set))
        if phase == "start":
            fail()

    ref = Example.start(handle=fail, start=start)
    if phase == "handle":
        ref.tell(Flush())
    assert isinstance(supervisor.next(), ActorFailed)
    assert stop.is_set()


def test_a_clock_ticks_without_drift_until_its_actor_stops() -> None:
    ticks: SimpleQueue[Message] = SimpleQueue()
    began = time.monotonic()
    ref = Example.start(handle=ticks.put, start=lambda actor: actor.own(clock(actor, 0.01)))
    assert [ticks.get(timeout=WAIT_SECONDS) for _ in range(3)] == [TickElapsed()] * 3
    assert time.monotonic() - began >= 0.03
    ref.stop(timeout=WAIT_SECONDS)
    assert not [thread for thread in threading.enumerate() if thread.name == "Example-clock"]


def test_a_message_to_an_actor_that_is_not_running_is_dropped_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="actors.framework.actor"):
        assert not send("Nobody", Flush())
    assert caplog.messages == ["Nobody is not running; dropped Flush"]


def test_a_name_stands_for_the_actor_that_is_running_now() -> None:
    former = Peer("Example")
    former.ref.stop(timeout=WAIT_SECONDS)
    present = Peer("Example")
    assert send("Example", Flush())
    assert present.heard() == [Flush()]
