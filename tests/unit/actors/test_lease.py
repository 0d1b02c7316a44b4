"""When the lease may be renewed: tables of the probes that arrive, second by second."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from actors.writing.clocks import Clock
from actors.writing.lease import Judgement, LeaseKeeper

RENEW, RELIST, WAIT = Judgement.RENEW, Judgement.RELIST, Judgement.WAIT


@dataclass(frozen=True)
class Probe:
    """A probe that arrives `at` so many seconds of the monotonic clock."""

    at: float
    as_of: float
    expected: Judgement
    slept: float = 0.0
    """Seconds that the machine has slept by then."""
    travelled: float = 0.0
    """Seconds since the probe was sent."""


HISTORIES = {
    "every second": (3, [Probe(1, 0.5, RENEW), Probe(2, 0.5, RENEW), Probe(3, 0.5, RENEW)]),
    "late, but not too late": (3, [Probe(1, 0.5, RENEW), Probe(3.9, 0.5, RENEW)]),
    "stopped: it waits for a listing that was read after the end": (
        3,
        [
            Probe(1, 0.5, RENEW),
            Probe(9, 0.5, RELIST),
            Probe(10, 0.5, WAIT),
            Probe(11, 9.1, RENEW),
            Probe(12, 9.1, RENEW),
        ],
    ),
    "stopped, and the API server is away for an hour": (
        30,
        [Probe(1, 0.5, RENEW), Probe(60, 0.5, RELIST)]
        + [Probe(float(second), 0.5, WAIT) for second in range(61, 3600)]
        + [Probe(3600, 3599.5, RENEW)],
    ),
    "stopped twice: a listing from in between is too old": (
        3,
        [Probe(1, 0.5, RENEW), Probe(9, 0.5, RELIST), Probe(19, 9.1, RELIST), Probe(20, 19.1, RENEW)],
    ),
    "a probe that was under way during the stop": (
        3,
        [Probe(1, 0.5, RENEW), Probe(9, 0.5, RELIST, travelled=7), Probe(9.1, 0.5, WAIT)],
    ),
    "the machine slept: its clock stood still": (
        30,
        [
            Probe(1, 0.5, RENEW),
            Probe(2, 0.5, RELIST, slept=3600),
            Probe(3, 0.5, WAIT, slept=3600),
            Probe(4, 2.5, RENEW, slept=3600),
            Probe(5, 2.5, RENEW, slept=3600),
        ],
    ),
    "the machine slept for a moment": (30, [Probe(1, 0.5, RENEW), Probe(2, 0.5, RENEW, slept=20)]),
    "the first listing took longer than the lease": (3, [Probe(100, 99.0, RENEW)]),
    "stopped between the first listing and the first write": (3, [Probe(100, 0.5, RELIST), Probe(101, 100.1, RENEW)]),
    "without a lease": (
        0,
        [Probe(1, 0.5, RENEW), Probe(25, 0.5, RENEW), Probe(60, 0.5, RELIST), Probe(61, 60.1, RENEW)],
    ),
    "a lease as short as a tick": (1, [Probe(1, 0.5, RENEW), Probe(2.1, 0.5, RENEW), Probe(3.3, 0.5, RENEW)]),
}


@pytest.mark.parametrize("history", HISTORIES)
def test_a_lease_that_ran_out_is_renewed_only_when_all_sources_were_read_since(history: str) -> None:
    lease_seconds, probes = HISTORIES[history]
    keeper = LeaseKeeper(lease_seconds, clock(0))
    judgements = [
        keeper.judge(int((each.at - each.travelled) * 1e9), each.as_of, clock(each.at, each.slept)) for each in probes
    ]
    assert judgements == [each.expected for each in probes]


def clock(at: float, slept: float = 0.0) -> Clock:
    return Clock(int(at * 1e9), int((at + slept) * 1e9))
