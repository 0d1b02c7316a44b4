"""Who leads: candidates over one Lease in memory, with a clock of the test's own. tests/cluster has a real one."""

from __future__ import annotations

import copy
import json
import logging
import threading
import time as real_time
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.client import ApiException, V1ObjectMeta
from kubernetes.leaderelection import leaderelection

from actors.controller.leader_elector import LeaderElector
from actors.controller.waiting_source import WaitingSource
from k8s.api.client import Api
from k8s.sources.source import Wanted
from k8s.status import installations, leader
from k8s.status.installations import Installations
from k8s.status.leader import Leadership, Leases, new_identity, own_namespace
from tests.unit.peers import WAIT_SECONDS, Peer, fence

NOT_FOUND = json.dumps({"code": 404})


class Store:
    """One Lease, as an API server keeps it. `away` is how it fails for one who asks, if it does."""

    def __init__(self) -> None:
        self.lease: Any = None
        self.version = 0
        self.away: dict[str, ApiException] = {}
        self.delay: Callable[[], None] = lambda: None
        """Before an answer."""

    def leases(self, who: str) -> Any:
        return SimpleNamespace(
            timeout=None,
            failure="",
            retry_after=0.0,
            read_namespaced_lease=lambda _name, _namespace: self._read(who),
            create_namespaced_lease=lambda _namespace, body: self._keep(who, body),
            replace_namespaced_lease=lambda *, name, namespace, body: self._keep(who, body),  # noqa: ARG005
        )

    def _read(self, who: str) -> Any:
        self._answer(who)
        if self.lease is None:
            absent = ApiException(status=404)
            absent.body = NOT_FOUND
            raise absent
        return copy.deepcopy(self.lease)

    def _keep(self, who: str, body: Any) -> Any:
        self._answer(who)
        if self.lease is not None and body.metadata.resource_version != str(self.version):
            raise ApiException(status=409)
        self.version += 1
        self.lease = copy.deepcopy(body)
        self.lease.metadata = V1ObjectMeta(resource_version=str(self.version))
        return copy.deepcopy(self.lease)

    def _answer(self, who: str) -> None:
        self.delay()
        if who in self.away:
            raise self.away[who]


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


class Candidates:
    def __init__(self, clock: Clock, namespace: str = "elf") -> None:
        self.store = Store()
        self.clock = clock
        self.namespace = namespace
        self.list_leases: Callable[[], list[Any]] = list
        """The Leases of all namespaces."""
        self.lost: dict[str, list[str]] = {}
        self.all: dict[str, Leadership] = {}
        self.elected: list[str] = []

    def __getitem__(self, name: str) -> Leadership:
        if name not in self.all:
            self.lost[name] = []
            made = Leadership(
                leases=self.store.leases(name),
                namespace=self.namespace,
                identity=name,
                on_lost=self.lost[name].append,
                installations=Installations(self.list_leases, self.namespace, leader.LEASE_SECONDS),
            )
            made.when_elected(lambda: self.elected.append(name))
            self.all[name] = made
        return self.all[name]

    def leading(self) -> list[str]:
        return [name for name, each in self.all.items() if each.leads()]

    def run(self, seconds: int, *names: str) -> None:
        """Each tries every two seconds."""
        for _ in range(seconds // 2):
            self.clock.now += 2
            for name in names:
                self[name].try_once()
            assert len(self.leading()) <= 1


@pytest.fixture
def candidates(monkeypatch: pytest.MonkeyPatch) -> Candidates:
    clock = Clock()
    monkeypatch.setattr(leader, "time", clock)
    monkeypatch.setattr(leaderelection, "time", clock)
    monkeypatch.setattr(installations, "time", clock)
    return Candidates(clock)


def unreachable() -> ApiException:
    return ApiException(status=0, reason="connection refused")


def test_the_first_to_come_leads_and_goes_on_leading(candidates: Candidates) -> None:
    candidates.run(60, "a", "b")
    assert candidates.leading() == ["a"]
    assert candidates.elected == ["a"]
    assert [each.holder for each in candidates.all.values()] == ["a", "a"]


def test_when_the_leader_dies_another_takes_over_once_its_lease_has_ended(candidates: Candidates) -> None:
    candidates.run(20, "a", "b")
    candidates.run(14, "b")
    assert candidates.leading() == []
    candidates.run(4, "b")
    assert candidates.leading() == ["b"]


def test_a_leader_that_gives_up_is_followed_at_once(candidates: Candidates) -> None:
    candidates.run(20, "a", "b")
    candidates["a"].release()
    assert candidates.leading() == []
    candidates.run(2, "b")
    assert candidates.leading() == ["b"]
    assert candidates.store.lease.spec.holder_identity == "b"


def test_who_does_not_lead_gives_nothing_up(candidates: Candidates) -> None:
    candidates.run(20, "a", "b")
    candidates["b"].release()
    candidates.run(20, "a", "b")
    assert candidates.leading() == ["a"]


def test_an_outage_suspends_and_its_end_goes_on(candidates: Candidates) -> None:
    candidates.run(20, "a", "b")
    candidates.store.away = {name: unreachable() for name in "ab"}
    candidates.run(8, "a", "b")
    assert candidates.leading() == ["a"]
    candidates.run(120, "a", "b")
    assert candidates.leading() == []
    candidates.store.away.clear()
    candidates.run(2, "a", "b")
    assert candidates.leading() == ["a"]
    assert candidates.elected == ["a"] and candidates.lost["a"] == []


def test_who_was_cut_off_from_the_others_learns_that_another_leads(candidates: Candidates) -> None:
    candidates.run(20, "a", "b")
    candidates.store.away = {"a": unreachable()}
    candidates.run(30, "a", "b")
    assert candidates.leading() == ["b"]
    candidates.store.away.clear()
    candidates.run(20, "a", "b")
    assert candidates.leading() == ["b"]
    assert candidates.lost == {"a": ["b leads now"], "b": []}


def test_a_thread_that_is_stuck_does_not_lead(candidates: Candidates) -> None:
    candidates.run(20, "a")
    candidates.clock.now += 10.1
    assert not candidates["a"].leads()


def test_a_leader_leads_from_when_it_asked_not_from_when_it_was_answered(candidates: Candidates) -> None:
    def answer_late() -> None:
        candidates.clock.now += 3

    candidates.store.delay = answer_late
    candidates["a"].try_once()  # two questions, six seconds
    assert candidates["a"].leads()
    candidates.clock.now += 5
    assert not candidates["a"].leads()


def test_a_lease_that_somebody_else_writes_into_is_let_go_at_once(candidates: Candidates) -> None:
    candidates.run(20, "a")
    candidates.store.lease.spec.holder_identity = "b"
    candidates["a"].try_once()
    assert not candidates["a"].leads()
    assert candidates.lost["a"] == ["b leads now"]


def test_a_lease_that_is_anothers_by_now_is_not_given_up(candidates: Candidates) -> None:
    candidates.run(20, "a")
    candidates.store.lease.spec.holder_identity = "b"
    candidates["a"].release()
    assert candidates.store.lease.spec.holder_identity == "b"


def test_of_two_that_take_it_at_once_one_gets_it(candidates: Candidates) -> None:
    candidates.run(2, "a")
    candidates["b"].try_once()
    candidates.clock.now += 16
    a, b = (candidates[name] for name in "ab")
    lease = candidates.store.leases("a").read_namespaced_lease("", "")
    b.try_once()
    assert b.leads()
    # What a read before is old now, and its write is refused.
    a._lock.lease_reference = lease
    assert not a._lock.update("", "", a._election.observed_record)


@pytest.mark.parametrize(
    "error", [unreachable(), ApiException(status=500), ApiException(status=403, reason="Forbidden")], ids=str
)
def test_errors_are_failures_no_more(candidates: Candidates, error: ApiException) -> None:
    candidates.store.away = {"a": error}
    candidates.run(10, "a")
    assert candidates.leading() == []
    candidates.store.away.clear()
    candidates.run(2, "a")
    assert candidates.leading() == ["a"]


def test_a_lease_that_somebody_deletes_is_made_anew(candidates: Candidates) -> None:
    candidates.run(20, "a", "b")
    candidates.store.lease = None
    candidates.run(20, "a", "b")
    assert candidates.leading() == ["a"]


def test_the_times_in_the_lease_are_utc(candidates: Candidates) -> None:
    candidates.run(4, "a")
    assert candidates.store.lease.spec.renew_time == datetime.fromtimestamp(candidates.clock.now, UTC)


def test_a_change_of_who_leads_is_one_line(candidates: Candidates, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="k8s.status.leader"):
        candidates.run(20, "a", "b")
        candidates.store.away = {"a": unreachable()}
        candidates.run(14, "a")
    lines = [each.getMessage() for each in caplog.records if each.name == "k8s.status.leader"]
    lease = " (Lease elf/balancing-controller)"
    assert lines == [
        f"a leads, that is this process{lease}",
        f"standing by: a leads{lease}",
        f"nothing is written until the Lease can be renewed{lease}",
    ]


def test_what_stands_in_the_way_is_told(candidates: Candidates, caplog: pytest.LogCaptureFixture) -> None:
    candidates.store.away = {"a": unreachable()}
    candidates["a"]._leases.failure = "connection refused"
    candidates.run(20, "a")
    (line,) = [each for each in caplog.records if each.name == "k8s.status.leader"]
    assert line.levelname == "WARNING"
    told = "standing by: nobody is known to lead (Lease elf/balancing-controller: connection refused)"
    assert line.getMessage() == told


def test_whoever_asks_later_is_told_of_the_election_at_once(candidates: Candidates) -> None:
    told: list[int] = []
    candidates["a"].when_elected(lambda: told.append(1))
    assert told == []
    candidates.run(4, "a")
    candidates["a"].when_elected(lambda: told.append(2))
    assert told == [1, 2]


def test_the_loop_stops_at_once() -> None:
    alone = Installations(list, "elf", leader.LEASE_SECONDS)
    held = Leadership(leases=Store().leases("a"), namespace="elf", identity="a", on_lost=print, installations=alone)
    thread = threading.Thread(target=held.run)
    thread.start()
    held.stop()
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()


# --- two installations ------------------------------------------------------------------------------------------------


class Two:
    """Installations in the namespaces elf and second, with a process `a` and `b` each."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.both = [Candidates(clock, namespace) for namespace in ("elf", "second")]
        self.may_look = True
        for each in self.both:
            each.list_leases = self.leases

    def leases(self) -> list[Any]:
        if not self.may_look:
            raise ApiException(status=403, reason="Forbidden")
        found = []
        for each in self.both:
            if each.store.lease is not None:
                lease = copy.deepcopy(each.store.lease)
                lease.metadata.namespace = each.namespace
                found.append(lease)
        return found

    def run(self, seconds: int, *namespaces: str) -> None:
        for _ in range(seconds // 2):
            self.clock.now += 2
            for each in self.both:
                if each.namespace in namespaces:
                    for name in "ab":
                        each[name].try_once()

    def leading(self) -> list[str]:
        return [f"{each.namespace}/{name}" for each in self.both for name in each.leading()]


BOTH = ("elf", "second")


@pytest.fixture
def two(candidates: Candidates) -> Two:
    return Two(candidates.clock)


def test_of_two_installations_the_second_stands_by_and_says_who_leads(
    two: Two, caplog: pytest.LogCaptureFixture
) -> None:
    two.run(10, "elf")
    with caplog.at_level(logging.INFO, logger="k8s.status.leader"):
        two.run(60, *BOTH)
    assert two.leading() == ["elf/a"]
    assert "standing by: the installation in namespace elf leads, by a" in caplog.text
    assert two.both[1]["b"].holder == "elf/a"
    assert two.both[1].lost == {"a": [], "b": []}


def test_when_the_first_installation_is_removed_the_second_takes_over(two: Two) -> None:
    two.run(10, "elf")
    two.run(10, *BOTH)
    two.run(20, "second")
    assert two.leading() == ["second/a"]


def test_an_installation_that_gives_its_lease_up_is_followed_at_once(two: Two) -> None:
    two.run(10, "elf")
    two.run(10, *BOTH)
    two.both[0]["a"].release()
    two.run(2, "second")
    assert two.leading() == ["second/a"]


def test_of_two_that_were_elected_at_once_the_later_one_ends(two: Two) -> None:
    looks, two.may_look = two.may_look, False
    two.run(4, "elf")
    two.run(4, *BOTH)
    assert two.leading() == ["elf/a", "second/a"]
    two.may_look = looks
    two.run(4, *BOTH)
    assert two.leading() == ["elf/a"]
    assert two.both[1].lost["a"] == ["the installation in namespace elf leads, by a, which came first"]
    assert two.both[0].lost["a"] == []


def test_a_lease_that_was_left_behind_holds_nobody_up(two: Two) -> None:
    two.run(10, "elf")
    two.clock.now += 3600
    two.run(2, "second")
    assert two.leading() == ["second/a"]


def test_without_the_right_to_look_that_is_said_once_and_the_own_namespace_counts(
    two: Two, caplog: pytest.LogCaptureFixture
) -> None:
    two.may_look = False
    with caplog.at_level(logging.WARNING, logger="k8s.status.installations"):
        two.run(20, "elf")
    assert two.leading() == ["elf/a"]
    said = [each.getMessage() for each in caplog.records if each.name == "k8s.status.installations"]
    assert len(said) == 2, "by each of the two processes"
    assert "the right to list leases.coordination.k8s.io" in said[0]


# --- the way to the API server ----------------------------------------------------------------------------------------


def kubeconfig(folder: Path, port: int, namespace: str = "") -> str:
    context = {"cluster": "c", "user": "u", **({"namespace": namespace} if namespace else {})}
    (folder / "token").write_text("first")
    config = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"tokenFile": str(folder / "token")}}],
        "contexts": [{"name": "x", "context": context}],
        "current-context": "x",
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    return str(path)


def test_a_server_that_is_not_there_or_does_not_answer_is_an_error_that_the_lock_expects(tmp_path: Path) -> None:
    silent = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # listens, and answers nobody
    leases = Leases(Api(kubeconfig(tmp_path, silent.server_port)))
    leases.timeout = (0.2, 0.2)
    began = real_time.monotonic()
    with pytest.raises(ApiException) as silence:
        leases.read_namespaced_lease("x", "y")
    silent.server_close()
    with pytest.raises(ApiException) as absence:
        leases.read_namespaced_lease("x", "y")
    assert real_time.monotonic() - began < 2
    assert silence.value.status == absence.value.status == 0
    assert "timed out" in str(silence.value.reason)
    assert "refused" in leases.failure


def test_credentials_that_are_refused_are_read_again(tmp_path: Path) -> None:
    tokens: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            tokens.append(self.headers["Authorization"])
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    leases = Leases(Api(kubeconfig(tmp_path, server.server_port)))
    (tmp_path / "token").write_text("second")
    for _ in range(2):
        with pytest.raises(ApiException):
            leases.read_namespaced_lease("x", "y")
    server.shutdown()
    server.server_close()
    assert tokens == ["Bearer first", "Bearer second"]


@pytest.mark.parametrize(
    ("variable", "account", "context", "found"),
    [
        ("mine", "account", "context", "mine"),
        ("", "account\n", "context", "account"),
        ("", "", "context", "context"),
        ("", "", "", "elf"),
    ],
)
def test_the_namespace_of_the_lease(
    variable: str, account: str, context: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POD_NAMESPACE", variable)
    file = tmp_path / "namespace"
    if account:
        file.write_text(account)
    monkeypatch.setattr(leader, "_NAMESPACE_FILE", file)
    assert own_namespace(kubeconfig(tmp_path, 1, context)) == found


def test_without_any_configuration_the_namespace_is_elf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POD_NAMESPACE", raising=False)
    monkeypatch.setattr(leader, "_NAMESPACE_FILE", tmp_path / "absent")
    assert own_namespace(str(tmp_path / "nowhere")) == "elf"


def test_no_two_processes_have_one_identity() -> None:
    assert new_identity() != new_identity()


# --- the actor, and the sources that wait -----------------------------------------------------------------------------


class FakeCampaign:
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
    campaign = FakeCampaign()
    ref = LeaderElector.start(campaign=campaign)
    fence(ref)
    ref.stop(timeout=WAIT_SECONDS)
    assert campaign.events == ["runs", "ends", "releases"]


def test_an_election_that_ends_by_itself_is_a_failure() -> None:
    supervisor = Peer("Supervisor")
    campaign = FakeCampaign()
    LeaderElector.start(campaign=campaign)
    campaign.over.set()
    failure: Any = supervisor.next()
    assert (failure.name, failure.phase) == ("LeaderElector", "thread")


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

    def subscribe(self, wanted: frozenset[Wanted], revision: int) -> None:
        self.events.append((wanted, revision))


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
