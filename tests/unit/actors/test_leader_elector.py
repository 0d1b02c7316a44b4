"""LeaderElector, and the sources that wait for the election."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from actors.controller.leader_elector import LeaderElector
from actors.controller.waiting_source import WaitingSource
from actors.framework.messages import ActorFailed
from k8s.sources.source import Topic
from tests.unit.peers import WAIT_SECONDS, Peer, fence


class FakeElection:
    def __init__(self) -> None:
        self.over = threading.Event()
        self.events: list[str] = []

    def run(self) -> None:
        self.events.append("runs")
        self.over.wait(WAIT_SECONDS)
        self.events.append("ends")

    def stop(self) -> None:
        self.over.set()

    def release(self) -> None:
        self.events.append("releases")


def test_the_elector_gives_the_lease_up_when_its_thread_has_ended() -> None:
    election = FakeElection()
    ref = LeaderElector.start(election=election)
    fence(ref)
    ref.stop(timeout=WAIT_SECONDS)
    assert election.events == ["runs", "ends", "releases"]


def test_an_election_that_ends_by_itself_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    supervisor = Peer("Supervisor")
    election = FakeElection()
    LeaderElector.start(election=election)
    election.over.set()
    assert supervisor.next() == ActorFailed(name="LeaderElector")
    assert "LeaderElector failed (thread): RuntimeError: thread election ended by itself" in caplog.messages


class RecordingSource:
    def __init__(self) -> None:
        self.events: list[object] = []

    def run(self) -> None:
        self.events.append("runs")

    def stop(self) -> None:
        self.events.append("stops")

    def relist(self, since: float = 0.0) -> None:
        del since
        self.events.append("relists")

    def subscribe(self, topics: frozenset[Topic], revision: int) -> None:
        self.events.append((topics, revision))


def _waiting() -> tuple[RecordingSource, WaitingSource, list[Any], threading.Thread]:
    real, calls = RecordingSource(), list[Any]()
    source = WaitingSource(real, calls.append)
    thread = threading.Thread(target=source.run)
    thread.start()
    return real, source, calls, thread


def test_a_source_waits_for_the_election_and_keeps_what_it_was_asked_for() -> None:
    real, source, calls, thread = _waiting()
    source.subscribe(frozenset(), 3)
    source.relist()
    assert real.events == [(frozenset(), 3), "relists"]
    calls[0]()
    thread.join(WAIT_SECONDS)
    assert real.events[-1] == "runs"


def test_a_source_that_is_stopped_while_it_waits_never_runs() -> None:
    real, source, _, thread = _waiting()
    source.stop()
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()
    assert real.events == ["stops"]
