"""Who leads: an election over one Lease in memory, and what its requests say to a server on a socket."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from k8s.api.client import Api, Timeouts
from k8s.api.errors import ApiError, Unreachable
from k8s.election import election as module
from k8s.election.election import LEASE_DURATION_SECONDS, Election
from k8s.election.installations import Installations
from tests.unit.api_server import api_server, hang, page, refusal
from tests.unit.k8s.candidates import Candidates, Client, LeaseServer, replace_clocks
from tests.unit.peers import WAIT_SECONDS


@pytest.fixture
def candidates(monkeypatch: pytest.MonkeyPatch) -> Candidates:
    return Candidates(replace_clocks(monkeypatch), LeaseServer())


def new_election(api: Any) -> Election:
    installations = Installations(api, "elf", LEASE_DURATION_SECONDS)
    return Election(api=api, namespace="elf", identity="a", on_lost=print, installations=installations)


def unreachable() -> Unreachable:
    return Unreachable("connection refused")


def test_the_first_candidate_leads_and_goes_on_leading(candidates: Candidates) -> None:
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
    assert candidates.spec["holderIdentity"] == "b"


def test_a_candidate_that_does_not_lead_gives_nothing_up(candidates: Candidates) -> None:
    candidates.run(20, "a", "b")
    candidates["b"].release()
    candidates.run(20, "a", "b")
    assert candidates.leading() == ["a"]


def test_an_outage_only_suspends_the_leader(candidates: Candidates) -> None:
    candidates.run(20, "a", "b")
    candidates.server.away = {name: unreachable() for name in "ab"}
    candidates.run(8, "a", "b")
    assert candidates.leading() == ["a"]
    candidates.run(120, "a", "b")
    assert candidates.leading() == []
    candidates.server.away.clear()
    candidates.run(2, "a", "b")
    assert candidates.leading() == ["a"]
    assert candidates.elected == ["a"] and candidates.lost["a"] == []


def test_a_leader_that_was_cut_off_learns_that_another_leads(candidates: Candidates) -> None:
    candidates.run(20, "a", "b")
    candidates.server.away = {"a": unreachable()}
    candidates.run(30, "a", "b")
    assert candidates.leading() == ["b"]
    candidates.server.away.clear()
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

    candidates.server.before_answer = answer_late
    candidates["a"].try_once()  # two requests, six seconds
    assert candidates["a"].leads()
    candidates.clock.now += 5
    assert not candidates["a"].leads()


def test_a_leader_stops_leading_at_once_when_somebody_else_writes_the_lease(candidates: Candidates) -> None:
    candidates.run(20, "a")
    candidates.spec["holderIdentity"] = "b"
    candidates["a"].try_once()
    assert not candidates["a"].leads()
    assert candidates.lost["a"] == ["b leads now"]


def test_a_former_leader_does_not_release_the_lease_of_another(candidates: Candidates) -> None:
    candidates.run(20, "a")
    candidates.spec["holderIdentity"] = "b"
    candidates["a"].release()
    assert candidates.spec["holderIdentity"] == "b"


def test_of_two_candidates_that_take_the_lease_at_once_one_gets_it(candidates: Candidates) -> None:
    candidates.run(2, "a")
    candidates["b"].try_once()
    candidates["c"].try_once()
    candidates.clock.now += 16

    client: Any = candidates["c"]._api
    read = client.get

    def read_while_b_is_quicker(path: str, *arguments: Any, **keywords: Any) -> Any:
        lease = read(path, *arguments, **keywords)
        if path == candidates.path:
            candidates["b"].try_once()
        return lease

    client.get = read_while_b_is_quicker
    candidates["c"].try_once()
    assert candidates.leading() == ["b"]
    assert candidates.lost["c"] == [], "c was never elected"


@pytest.mark.parametrize(
    "error", [unreachable(), ApiError(500, "Unknown", "no message"), ApiError(403, "Forbidden", "no")], ids=str
)
def test_an_error_is_only_a_failed_attempt(candidates: Candidates, error: ApiError | Unreachable) -> None:
    candidates.server.away = {"a": error}
    candidates.run(10, "a")
    assert candidates.leading() == []
    candidates.server.away.clear()
    candidates.run(2, "a")
    assert candidates.leading() == ["a"]


def test_a_lease_that_somebody_deletes_is_created_again(candidates: Candidates) -> None:
    candidates.run(20, "a", "b")
    candidates.server.leases.clear()
    candidates.run(20, "a", "b")
    assert candidates.leading() == ["a"]


def test_the_lease_has_the_fields_that_client_go_writes(candidates: Candidates) -> None:
    candidates.run(4, "a")
    assert candidates.spec == {
        "holderIdentity": "a",
        "leaseDurationSeconds": 15,
        "acquireTime": "1970-01-12T13:46:42.000000Z",
        "renewTime": "1970-01-12T13:46:44.000000Z",
        "leaseTransitions": 0,
    }
    candidates.run(20, "b")
    assert (candidates.spec["holderIdentity"], candidates.spec["leaseTransitions"]) == ("b", 1)


@pytest.mark.parametrize(
    "spec", [{}, {"holderIdentity": 3, "renewTime": "soon", "leaseTransitions": "x"}, {"renewTime": "2026-01-01"}, None]
)
def test_a_lease_that_makes_no_sense_is_taken(candidates: Candidates, spec: Any) -> None:
    metadata = {"name": "balancing-controller", "namespace": "elf", "resourceVersion": "7"}
    candidates.server.leases[candidates.path] = {"metadata": metadata, "spec": spec}
    candidates.run(2, "a")
    assert candidates.leading() == ["a"]


def test_a_change_of_who_leads_is_one_line(candidates: Candidates, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="k8s.election.election"):
        candidates.run(20, "a", "b")
        candidates.server.away = {"a": unreachable()}
        candidates.run(14, "a")
    lines = [each.getMessage() for each in caplog.records if each.name == "k8s.election.election"]
    assert lines == [
        "this process leads, as a (Lease elf/balancing-controller)",
        "standing by, since a leads (Lease elf/balancing-controller)",
        "this process writes nothing until it can renew the Lease (Lease elf/balancing-controller: connection refused)",
    ]


def test_an_error_that_lasts_is_logged_once(candidates: Candidates, caplog: pytest.LogCaptureFixture) -> None:
    candidates.server.away = {"a": unreachable()}
    candidates.run(20, "a")
    (line,) = [each for each in caplog.records if each.name == "k8s.election.election"]
    assert line.levelname == "WARNING"
    expected = "standing by; it is not known who leads (Lease elf/balancing-controller: connection refused)"
    assert line.getMessage() == expected


def test_a_callback_that_is_added_after_the_election_is_called_at_once(candidates: Candidates) -> None:
    called: list[int] = []
    candidates["a"].when_elected(lambda: called.append(1))
    assert called == []
    candidates.run(4, "a")
    candidates["a"].when_elected(lambda: called.append(2))
    assert called == [1, 2]


def test_the_loop_stops_at_once() -> None:
    election = new_election(Client(LeaseServer(), "a"))
    thread = threading.Thread(target=election.run)
    thread.start()
    election.stop()
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()


# --- over a socket ----------------------------------------------------------------------------------------------------


def test_a_server_that_does_not_answer_costs_no_more_than_the_time_outs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_TIMEOUTS", Timeouts(connect=0.2, read=0.2))
    with api_server(tmp_path) as server:
        api = Api(str(server.kubeconfig))
        server.will(page(), hang)
        election = new_election(api)
        began = time.monotonic()
        election.try_once()
    assert time.monotonic() - began < 5
    assert not election.leads()
    assert "standing by; it is not known who leads (Lease elf/balancing-controller: " in caplog.text
    assert "timed out" in caplog.text


def test_the_retry_after_of_the_server_is_kept(tmp_path: Path) -> None:
    with api_server(tmp_path) as server:
        api = Api(str(server.kubeconfig))
        server.will(page(), refusal(429, "TooManyRequests", {"Retry-After": "7"}))
        election = new_election(api)
        election.try_once()
    assert election._retry_after == 7.0
