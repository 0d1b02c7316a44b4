"""The probes of the three watchers become one."""

from __future__ import annotations

from dataclasses import replace

from actors.messages.facts import SourceName
from actors.messages.upkeep import LeaseProbe
from actors.resolving.lease_rounds import LeaseRounds

AS_OF = 7.0


def probe(source: SourceName, sent_ns: int) -> LeaseProbe:
    return LeaseProbe(sent_ns=sent_ns, passed_by=source)


def passed(rounds: LeaseRounds, *probes: LeaseProbe) -> list[int]:
    """When the probes that were joined were sent."""
    found = []
    for each in probes:
        rounds.arrived(each)
        joined = rounds.join(AS_OF)
        if joined is not None:
            assert joined == replace(joined, passed_by=None, as_of=AS_OF)
            found.append(joined.sent_ns)
    return found


def test_a_round_is_joined_when_every_watcher_has_passed_it_on() -> None:
    assert passed(LeaseRounds(), *(probe(source, 1) for source in SourceName)) == [1]


def test_a_watcher_that_is_stuck_stops_the_rounds() -> None:
    rounds = LeaseRounds()
    passed(rounds, *(probe(source, 1) for source in SourceName))
    others = [source for source in SourceName if source != SourceName.SERVICES]
    assert passed(rounds, *(probe(source, second) for second in (2, 3, 4) for source in others)) == []


def test_the_joined_probe_has_the_time_of_the_slowest_watchers() -> None:
    policies, services, endpoints = SourceName
    assert passed(LeaseRounds(), probe(policies, 3), probe(services, 3), probe(endpoints, 2)) == [2]


def test_a_probe_is_passed_on_once() -> None:
    rounds = LeaseRounds()
    passed(rounds, *(probe(source, 1) for source in SourceName))
    assert rounds.join(AS_OF) is None
