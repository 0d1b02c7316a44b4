"""The supervisor: order of start and stop, restarts, and when it gives up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from queue import SimpleQueue
from typing import Any, ClassVar

import pykka
import pytest

from actors.framework import supervisor as supervising
from actors.framework.actor import AgentActor
from actors.framework.messages import ActorReport, ActorsReported, ActorState, Message, Ping, TickElapsed
from actors.framework.supervisor import ChildSpec, Supervisor, restart_delay, within_window
from actors.resolving.conflict_resolver import Flush
from tests.unit.peers import WAIT_SECONDS, Peer, fence, wait_until_dead

pytestmark = pytest.mark.usefixtures("no_ticks")


@pytest.fixture
def no_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the test sends ticks."""
    monkeypatch.setattr(supervising, "TICK_SECONDS", 3600.0)


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """A stuck child waits for this event."""
    event = threading.Event()
    yield event
    event.set()


class _Child(AgentActor):
    """Does what the test wants at a Flush, and notes each start and stop under its class name."""

    HANDLERS: ClassVar[Mapping[type[Message], str]] = {Flush: "_on_flush"}

    def __init__(self, events: SimpleQueue[str], flush: Callable[[], object]) -> None:
        super().__init__()
        self._events, self._flush = events, flush

    def started(self) -> None:
        self._events.put(f"{self.name} started")

    def stopped(self) -> None:
        self._events.put(f"{self.name} stopped")

    def _on_flush(self, _message: Flush) -> None:
        self._flush()


def fail() -> None:
    raise ValueError("out of luck")


class Supervised:
    """A supervisor and its children, which have the given names."""

    def __init__(self, *names: str, flush: Callable[[], object] = fail) -> None:
        self.events: SimpleQueue[str] = SimpleQueue()
        self.fatal: SimpleQueue[str] = SimpleQueue()
        self.reporter = Peer("StatusReporter")
        specs = [ChildSpec(name, self._factory(name, flush)) for name in names]
        self.ref = Supervisor.start(specs=specs, reporters=["StatusReporter"], on_fatal=self.fatal.put)

    def _factory(self, name: str, flush: Callable[[], object]) -> Callable[[], pykka.ActorRef[AgentActor]]:
        kind: Any = type(name, (_Child,), {})
        return lambda: kind.start(self.events, flush)

    def next_event(self) -> str:
        return self.events.get(timeout=WAIT_SECONDS)

    def child(self, name: str) -> pykka.ActorRef[Any]:
        (ref,) = pykka.ActorRegistry.get_by_class_name(name)
        return ref

    def tick(self) -> dict[str, ActorReport]:
        """Sends a tick and returns what the supervisor reports then, by actor."""
        fence(self.ref)
        self.reporter.heard()
        self.ref.tell(TickElapsed())
        fence(self.ref)
        message = self.reporter.heard()[-1]
        assert isinstance(message, ActorsReported)
        return {report.name: report for report in message.actors}


def test_children_start_in_order_and_stop_in_reverse() -> None:
    supervised = Supervised("First", "Second")
    fence(supervised.ref)
    supervised.ref.stop(timeout=WAIT_SECONDS)
    assert [supervised.next_event() for _ in range(4)] == [
        "First started",
        "Second started",
        "Second stopped",
        "First stopped",
    ]


def test_each_tick_reports_every_actor_and_the_supervisor_itself() -> None:
    reports = Supervised("First", "Second").tick()
    assert list(reports) == ["Supervisor", "First", "Second"]
    assert reports["First"] == ActorReport(name="First", state=ActorState.RUNNING, restarts=0, mailbox=0)


@pytest.mark.usefixtures("expects_failures")
def test_a_child_that_fails_is_replaced_and_the_others_keep_running() -> None:
    supervised = Supervised("First", "Second")
    fence(supervised.ref)
    failed, other = supervised.child("First"), supervised.child("Second")
    failed.tell(Flush())
    assert [supervised.next_event() for _ in range(4)] == [
        "First started",
        "Second started",
        "First stopped",
        "First started",
    ]
    reports = supervised.tick()
    assert (reports["First"].state, reports["First"].restarts) == (ActorState.RUNNING, 1)
    assert reports["Second"].restarts == 0
    assert supervised.child("First").actor_urn != failed.actor_urn
    assert supervised.child("Second").actor_urn == other.actor_urn


def test_a_child_stopped_from_outside_is_replaced_after_the_next_tick() -> None:
    supervised = Supervised("First")
    fence(supervised.ref)
    supervised.child("First").stop(timeout=WAIT_SECONDS)
    assert supervised.tick()["First"].state == ActorState.RESTARTING
    assert [supervised.next_event() for _ in range(3)] == ["First started", "First stopped", "First started"]
    report = supervised.tick()["First"]
    assert (report.state, report.restarts) == (ActorState.RUNNING, 1)


@pytest.mark.usefixtures("expects_failures")
def test_a_start_that_fails_is_retried() -> None:
    tries: SimpleQueue[None] = SimpleQueue()
    started = threading.Event()

    class First(AgentActor):
        def __init__(self) -> None:
            super().__init__()
            tries.put(None)
            if tries.qsize() == 1:
                fail()

        def started(self) -> None:
            started.set()

    Supervisor.start(specs=[ChildSpec("First", First.start)], reporters=(), on_fatal=lambda _: None)
    assert started.wait(WAIT_SECONDS)


def test_a_child_that_does_not_answer_a_ping_is_reported_as_stuck(
    monkeypatch: pytest.MonkeyPatch, release: threading.Event
) -> None:
    monkeypatch.setattr(supervising, "STUCK_SECONDS", -1.0)
    supervised = Supervised("First", flush=lambda: release.wait(WAIT_SECONDS))
    fence(supervised.ref)
    child = supervised.child("First")
    child.tell(Flush())
    child.tell(Flush())
    assert supervised.tick()["First"].state == ActorState.RUNNING
    report = supervised.tick()["First"]
    assert report.state == ActorState.STUCK
    assert report.mailbox >= 1


@pytest.mark.parametrize(
    ("recent", "jitter", "delay"),
    [
        (0, 1.0, 0.05),
        (0, 0.0, 0.025),
        (1, 1.0, 0.1),
        (4, 1.0, 0.8),
        (7, 1.0, 5.0),
        (9, 1.0, 5.0),
        (9, 0.0, 2.5),
        (10, 0.5, None),
        (11, 0.5, None),
    ],
)
def test_the_delay_doubles_from_50_ms_to_5_s_and_the_supervisor_gives_up_at_the_limit(
    recent: int, jitter: float, delay: float | None
) -> None:
    assert restart_delay(recent, jitter) == delay


def test_only_restarts_of_the_last_minute_count() -> None:
    assert within_window((0.0, 39.9, 40.1, 99.0), now=100.0) == (40.1, 99.0)


@pytest.mark.usefixtures("expects_failures")
def test_too_many_failures_of_one_child_are_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "RESTART_LIMIT", 1)
    supervised = Supervised("First")
    fence(supervised.ref)
    assert supervised.next_event() == "First started"
    for expected in ("First started", None):
        supervised.child("First").tell(Flush())
        assert supervised.next_event() == "First stopped"
        if expected:
            assert supervised.next_event() == expected
    assert supervised.fatal.get(timeout=WAIT_SECONDS) == "First failed more than 1 times within 60 s"


@pytest.mark.usefixtures("expects_failures")
@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda ref: ref.tell(Flush()), "the supervisor failed"),
        (lambda ref: ref.stop(timeout=WAIT_SECONDS), "the supervisor was stopped"),
    ],
)
def test_the_end_of_the_supervisor_is_reported_and_stops_its_children(
    end: Callable[[pykka.ActorRef[Any]], object], reason: str
) -> None:
    supervised = Supervised("First")
    fence(supervised.ref)
    child = supervised.child("First")
    end(supervised.ref)
    wait_until_dead(child)
    reasons = [supervised.fatal.get(timeout=WAIT_SECONDS)]
    if reason not in reasons:
        reasons.append(supervised.fatal.get(timeout=WAIT_SECONDS))
    assert reason in reasons


def test_a_ping_is_answered_while_children_live() -> None:
    assert Supervised("First").ref.ask(Ping(), timeout=WAIT_SECONDS) == "Supervisor"
