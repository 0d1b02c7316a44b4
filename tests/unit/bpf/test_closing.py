"""The closer's decisions: which sockets are stale, and when to look for them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from bpf.closing.schedule import FULL_SECONDS, REPEATS, Schedule
from bpf.closing.staleness import Candidates, Usage, all_candidates, is_stale, new_candidates
from config.domain.addresses import Endpoint, Frontend, Protocol

UDP, TCP = Protocol.UDP, Protocol.TCP
POD, OTHER, NO_POD = (ip_address(f"10.1.0.{i}") for i in (1, 2, 3))
BACKEND = Endpoint(POD, 53)
DNS = Frontend(ip_address("10.96.0.10"), 53, UDP)
DNS_TCP = DNS._replace(protocol=TCP)


def usage(*pods: str, unusable: tuple[tuple[Frontend, Endpoint], ...] = ()) -> Usage:
    return Usage(pods=frozenset(map(ip_address, pods)), unusable=frozenset(unusable))


THERE = usage(str(POD))
GONE = usage(str(OTHER))
UNUSABLE = usage(str(POD), unusable=((DNS, BACKEND), (DNS_TCP, BACKEND)))


@pytest.mark.parametrize(
    ("frontend", "seen", "in_use", "stale"),
    [
        pytest.param(DNS, THERE, True, False, id="in use"),
        pytest.param(DNS, THERE, False, False, id="the policy was deleted and the Pod is there"),
        pytest.param(DNS, UNUSABLE, False, True, id="the Pod is not usable"),
        pytest.param(DNS, GONE, False, True, id="the Pod is gone"),
        pytest.param(DNS_TCP, THERE, False, False, id="TCP, the policy was deleted"),
        pytest.param(DNS_TCP, UNUSABLE, False, False, id="TCP, the Pod is not usable"),
        pytest.param(DNS_TCP, GONE, False, True, id="TCP, the Pod is gone"),
        pytest.param(DNS, UNUSABLE, True, False, id="in use, although a row calls it unusable"),
        pytest.param(DNS, GONE, True, False, id="in use, and no row for the Pod"),
        pytest.param(DNS._replace(port=54), UNUSABLE, False, False, id="not usable for another frontend"),
    ],
)
def test_a_socket_is_stale_when_its_backend_is_out_of_use(
    frontend: Frontend, seen: Usage, in_use: bool, stale: bool
) -> None:
    assert is_stale(frontend, BACKEND, seen, in_use=in_use) is stale


def test_sockets_of_a_pod_that_goes_are_candidates_for_both_protocols() -> None:
    candidates = new_candidates(THERE, GONE)
    assert candidates.protocols == (UDP, TCP)
    assert candidates.include(UDP, BACKEND, GONE) and candidates.include(TCP, BACKEND, GONE)
    assert not candidates.include(UDP, Endpoint(NO_POD, 53), GONE)
    assert not candidates.include(UDP, BACKEND, THERE), "its address is a Pod's again"


def test_udp_sockets_of_a_backend_that_becomes_unusable_are_candidates() -> None:
    candidates = new_candidates(THERE, UNUSABLE)
    assert candidates.protocols == (UDP,)
    assert candidates.include(UDP, BACKEND, UNUSABLE)
    assert not candidates.include(TCP, BACKEND, UNUSABLE)
    assert not candidates.include(UDP, BACKEND._replace(port=54), UNUSABLE)


def test_sockets_of_what_comes_into_use_are_no_candidates() -> None:
    assert new_candidates(GONE, usage(str(OTHER), str(POD))) == new_candidates(UNUSABLE, THERE) == Candidates()


def test_in_a_look_at_all_sockets_every_peer_that_is_no_pod_is_a_candidate() -> None:
    candidates = all_candidates(UNUSABLE)
    assert candidates.include(TCP, Endpoint(NO_POD, 443), UNUSABLE)
    assert candidates.include(UDP, BACKEND, UNUSABLE)
    assert not candidates.include(UDP, Endpoint(POD, 443), UNUSABLE)
    assert candidates | new_candidates(THERE, GONE) == new_candidates(THERE, GONE) | candidates == candidates


def due_at(schedule: Schedule, seen: Usage, *times: float) -> list[Candidates | None]:
    return [schedule.due(seen, time) for time in times]


def begun(seen: Usage) -> Schedule:
    """A schedule whose first looks are over."""
    schedule = Schedule()
    assert schedule.due(seen, 0.0) is None
    for delay in REPEATS:
        assert schedule.due(seen, delay) == all_candidates(seen)
    return schedule


def test_the_first_look_is_at_all_sockets_and_is_repeated() -> None:
    begun(THERE)


def test_nothing_is_due_while_nothing_changes_until_the_next_full_look() -> None:
    assert due_at(begun(THERE), THERE, 2.0, FULL_SECONDS - 1) == [None, None]
    assert due_at(begun(THERE), THERE, FULL_SECONDS, FULL_SECONDS + 0.5) == [None, all_candidates(THERE)]


def test_answers_under_way_have_time_to_come_before_a_change_is_looked_at_twice() -> None:
    change = new_candidates(THERE, GONE)
    assert due_at(begun(THERE), GONE, 10.0, 10.05, 10.2, 10.9, 11.0, 12.0) == [None, None, change, None, change, None]


def test_two_changes_are_looked_at_together() -> None:
    schedule, both = begun(usage(str(POD), str(OTHER))), usage()
    assert due_at(schedule, GONE, 10.0, 10.1) == [None, Candidates(gone=frozenset({POD}))]
    assert due_at(schedule, both, 10.9, 11.0) == [None, Candidates(gone=frozenset({POD, OTHER}))]


def test_what_comes_into_use_needs_no_look() -> None:
    assert begun(GONE).due(usage(str(OTHER), str(POD)), 10.0) is None


def test_after_a_start_over_all_sockets_are_looked_at() -> None:
    schedule = begun(THERE)
    schedule.start_over()
    assert due_at(schedule, THERE, 10.0, 10.1) == [None, all_candidates(THERE)]
