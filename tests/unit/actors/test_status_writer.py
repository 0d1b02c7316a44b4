"""StatusWriter by itself: what it asks for, what it writes, and what stops it."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

import pykka
import pytest

from actors.controller.status_writer import StatusWriter
from actors.framework.messages import ActorFailed, Message, TickElapsed
from actors.messages.resync import ResyncDesiredState, ResyncSource
from actors.messages.verdicts import ApplyVerdicts, PolicyStatusSeen, PolicyVerdict, WriteEnded
from k8s.objects.model import PolicyStatus
from k8s.status.write_requests import EventWrite, StatusWrite, Write, WriteAnswer, WriteResult
from tests.unit.peers import WAIT_SECONDS, Peer, fence, wait_until_dead
from tests.unit.verdicts import HELD, KEY, LOST, VERDICT

WRITTEN = WriteAnswer(result=WriteResult.WRITTEN, version=11)
AWAY = WriteAnswer(result=WriteResult.UNAVAILABLE, error="connection refused")
TICK = TickElapsed()
REFUSED = WriteAnswer(result=WriteResult.REFUSED, error="422 Invalid: no")


class Writing:
    """A StatusWriter, its peers, and an API server that answers as the test says."""

    def __init__(self, *answers: WriteAnswer) -> None:
        self.watcher, self.resolver, self.exporter, self.supervisor = (
            Peer(name) for name in ("PolicyWatcher", "ConflictResolver", "MetricsExporter", "Supervisor")
        )
        self.writes: SimpleQueue[Write] = SimpleQueue()
        self.answers = list(answers)
        self.leads = True
        self.ref: pykka.ActorRef[Any] = StatusWriter.start(write=self._write, leads=lambda: self.leads)

    def _write(self, write: Write) -> WriteAnswer:
        self.writes.put(write)
        return self.answers.pop(0) if self.answers else WRITTEN

    def tell(self, *messages: Message) -> None:
        for message in messages:
            self.ref.tell(message)
        fence(self.ref)

    def written(self) -> Write:
        return self.writes.get(timeout=WAIT_SECONDS)

    def left(self) -> list[Write]:
        """Stops the writer, which ends its thread when all writes so far are made. Returns those not returned yet."""
        self.ref.stop(timeout=WAIT_SECONDS)
        return [self.writes.get() for _ in range(self.writes.qsize())]

    def results(self, count: int) -> list[WriteEnded]:
        found = [self.exporter.next() for _ in range(count)]
        assert all(isinstance(each, WriteEnded) for each in found)
        return [each for each in found if isinstance(each, WriteEnded)]


def seen(status: PolicyStatus = HELD) -> PolicyStatusSeen:
    return PolicyStatusSeen(key=KEY, uid="u-1", status=status)


def judged(*verdicts: PolicyVerdict) -> ApplyVerdicts:
    return ApplyVerdicts(complete=True, verdicts=verdicts)


def test_at_its_start_it_asks_for_all_statuses_and_all_verdicts() -> None:
    writing = Writing()
    assert writing.watcher.next() == ResyncSource()
    assert writing.resolver.next() == ResyncDesiredState()


def test_a_change_is_written_then_its_event_and_both_are_counted() -> None:
    writing = Writing()
    writing.tell(seen(), judged(LOST))
    status, event = writing.written(), writing.written()
    assert isinstance(status, StatusWrite) and status.status.reason == "Conflict"
    assert isinstance(event, EventWrite) and event.reason == "Conflict"
    assert [each.write for each in writing.results(2)] == [status, event]


def test_a_status_that_the_api_server_has_already_is_not_written() -> None:
    writing = Writing()
    writing.tell(judged(VERDICT), seen(), TICK)
    assert writing.left() == []


def test_a_change_that_has_to_wait_is_written_at_a_later_tick() -> None:
    writing = Writing()
    writing.tell(seen(), judged(replace(VERDICT, nodes_ready=2)))
    writing.written()
    began = time.monotonic()
    writing.tell(judged(replace(VERDICT, nodes_ready=3)))
    status = writing.written()
    assert isinstance(status, StatusWrite) and status.status.nodes == "3/5"
    assert time.monotonic() - began > 0.8


def test_nothing_is_written_while_another_process_leads_or_may_lead() -> None:
    writing = Writing()
    writing.leads = False
    writing.tell(seen(), judged(LOST), TICK)
    assert writing.left() == []


def test_what_waited_is_written_once_this_process_leads() -> None:
    writing = Writing()
    writing.leads = False
    writing.tell(seen(), judged(LOST), TICK)
    writing.leads = True
    assert isinstance(writing.written(), StatusWrite)


def test_messages_are_handled_while_a_write_hangs() -> None:
    release = threading.Event()

    def hang(_write: Write) -> WriteAnswer:
        release.wait(WAIT_SECONDS)
        return WRITTEN

    ref = StatusWriter.start(write=hang, leads=lambda: True)
    ref.tell(seen())
    ref.tell(judged(LOST))
    fence(ref)
    release.set()


def test_a_failed_write_is_retried() -> None:
    writing = Writing(AWAY, AWAY)
    writing.tell(seen(), judged(LOST))
    tries = [writing.written() for _ in range(3)]
    assert all(isinstance(each, StatusWrite) for each in tries)
    assert isinstance(writing.written(), EventWrite)
    assert [each.answer.result for each in writing.results(4)] == [
        WriteResult.UNAVAILABLE,
        WriteResult.UNAVAILABLE,
        WriteResult.WRITTEN,
        WriteResult.WRITTEN,
    ]


@pytest.mark.parametrize(
    ("answer", "lines"),
    [
        pytest.param(
            AWAY,
            [
                "cannot write to the API server: connection refused; retrying with back-off",
                "the API server accepts writes again",
            ],
            id="unavailable",
        ),
        pytest.param(REFUSED, ["the API server refused the status of policy dns: 422 Invalid: no"], id="refused"),
        pytest.param(replace(REFUSED, gone=True), [], id="gone"),
    ],
)
def test_an_outage_or_a_refusal_is_logged_once(
    answer: WriteAnswer, lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="actors.controller.status_writer"):
        writing = Writing(answer, answer)
        writing.tell(seen(), judged(LOST))
        writing.results(4)
        fence(writing.ref)
    assert [each.getMessage() for each in caplog.records if each.name == "actors.controller.status_writer"] == lines


@pytest.mark.usefixtures("expects_failures")
def test_a_bug_in_a_write_fails_the_actor_so_that_it_is_restarted(caplog: pytest.LogCaptureFixture) -> None:
    supervisor = Peer("Supervisor")

    def broken(_write: Write) -> WriteAnswer:
        raise RuntimeError("broken")

    ref = StatusWriter.start(write=broken, leads=lambda: True)
    ref.tell(seen())
    ref.tell(judged(LOST))
    assert supervisor.next() == ActorFailed(name="StatusWriter")
    assert "StatusWriter failed (thread): RuntimeError: broken" in caplog.messages
    wait_until_dead(ref)


def test_a_writer_stops_without_delay() -> None:
    writing = Writing()
    fence(writing.ref)
    began = time.monotonic()
    writing.ref.stop(timeout=WAIT_SECONDS)
    assert time.monotonic() - began < 1.0


def test_a_write_that_hangs_does_not_delay_its_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.framework.actor._JOIN_SECONDS", 0.1)
    started, release = threading.Event(), threading.Event()

    def hang(_write: Write) -> WriteAnswer:
        started.set()
        release.wait(WAIT_SECONDS)
        return WRITTEN

    ref = StatusWriter.start(write=hang, leads=lambda: True)
    ref.tell(seen())
    ref.tell(judged(LOST))
    started.wait(WAIT_SECONDS)
    ref.stop(timeout=WAIT_SECONDS)
    release.set()  # the answer arrives when the actor has stopped
