"""Nothing goes to the kernel before every source has ended a listing."""

from __future__ import annotations

from actors.messages.facts import SourceName
from actors.resolving.sync_gate import SyncGate


def gate(*sources: SourceName, covers_policies: bool = True) -> SyncGate:
    made = SyncGate()
    for at, source in enumerate(sources, 1):
        made.listed(source, float(at), covers_policies=covers_policies)
    return made


def test_the_gate_opens_with_the_last_source() -> None:
    *some, last = SourceName
    made = gate(*some)
    assert not made.is_open
    made.listed(last, 9.0, covers_policies=True)
    assert made.is_open


def test_a_listing_that_does_not_cover_what_the_policies_need_opens_nothing() -> None:
    made = gate(*SourceName, covers_policies=False)
    assert not made.is_open
    assert made.as_of == 1.0


def test_everything_is_as_of_the_oldest_listing() -> None:
    policies, services, endpoints = SourceName
    assert gate(policies, services).as_of == 0
    made = gate(policies, services, endpoints)
    assert made.as_of == 1.0
    made.listed(policies, 5.0, covers_policies=True)
    assert made.as_of == 2.0
