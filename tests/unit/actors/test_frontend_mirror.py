"""What the agent knows about the rows that it has written."""

from __future__ import annotations

from ipaddress import ip_address

from actors.writing.frontend_mirror import FrontendMirror
from bpf.maps.rows import FrontendRow
from config.domain.addresses import Endpoint, Frontend, Protocol

DNS = Frontend(ip_address("10.96.0.10"), 53, Protocol.UDP)
FIRST, SECOND = (Endpoint(ip_address("10.0.0.1"), port) for port in (53, 54))


def noted(mirror: FrontendMirror, *backends: Endpoint, policy_id: int = 7) -> FrontendRow:
    """The row of DNS in the next free place, which the mirror has noted."""
    first = mirror.slots.take(len(backends))
    assert first is not None
    count = len(backends)
    row = FrontendRow(generation=1, backends_generation=1, frontend=DNS, policy_id=policy_id, first=first, count=count)
    mirror.note(row, backends)
    return row


def test_a_row_is_found_by_its_policy_and_by_its_place() -> None:
    mirror = FrontendMirror(8)
    mirror.slots.take(3)
    row = noted(mirror, FIRST, SECOND)
    assert (mirror.row_at(3), mirror.owned_by(7), set(mirror.policy_ids)) == (row, frozenset({DNS}), {7})
    assert mirror.owned_by(8) == frozenset()


def test_a_reduced_frontend_still_has_all_its_backends() -> None:
    mirror = FrontendMirror(8)
    noted(mirror, FIRST)
    mirror.reduced[DNS] = (FIRST, SECOND)
    assert (mirror.backends[DNS], mirror.all_backends(DNS)) == ((FIRST,), (FIRST, SECOND))


def test_a_row_that_is_gone_leaves_nothing_behind() -> None:
    mirror = FrontendMirror(8)
    noted(mirror, FIRST, SECOND)
    mirror.reduced[DNS] = (FIRST, SECOND)
    mirror.forget(DNS)
    assert (mirror.rows, mirror.all_backends(DNS), set(mirror.policy_ids)) == ({}, (), set())
    assert mirror.slots.used == 0
