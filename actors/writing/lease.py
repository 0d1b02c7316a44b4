"""When the lease may be renewed (docs/decisions/0006-lease.md). Pure; MapWriter asks, and does what follows.

The lease says: what is in the kernel was decided from what the sources deliver. It runs out when the process is
stopped, when an actor is stuck, or when the machine sleeps (which CLOCK_BOOTTIME alone counts). What happened meanwhile
may not have been delivered when the first probe after that arrives, so the sources are listed again; only what was read
after the end of the lease renews it. Until then calls take the normal way, for as long as an API server can't be
reached, too.

It goes on while the API server is away or refuses us (`k8s.sources.source.TroubleKind` says why).
"""

from __future__ import annotations

import time
from enum import Enum, auto
from typing import NamedTuple

GAP_SECONDS = 30.0
"""Without a lease a pause of this length is one after which the sources are listed again."""
_SHORTEST_GAP_SECONDS = 2.5
"""Probes come each second."""


class Clock(NamedTuple):
    monotonic_ns: int
    boottime_ns: int
    """Goes on while the machine sleeps."""


def read_clock() -> Clock:
    return Clock(time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME))


class Judgement(Enum):
    RENEW = auto()
    RELIST = auto()
    """It ran out: it ends, and the sources are to be listed again."""
    WAIT = auto()
    """They are being listed."""


class LeaseKeeper:
    """Lives as long as the process: a MapWriter that is restarted must know of a pause in its predecessor's time."""

    def __init__(self, lease_seconds: int, now: Clock) -> None:
        self.lease_ns = lease_seconds * 1_000_000_000
        """0: it never runs out."""
        seconds = max(float(lease_seconds), _SHORTEST_GAP_SECONDS) if lease_seconds else GAP_SECONDS
        self._gap_ns = int(seconds * 1e9)
        self._renewed = now
        """As of when it was renewed; at first, when the process began."""
        self._looked = now
        self._required_ns = 0
        """The sources must have been read at that time (CLOCK_MONOTONIC) or later."""
        self._waiting = False

    def judge(self, sent_ns: int, as_of: float, now: Clock) -> Judgement:
        """A probe that was sent at `sent_ns` has arrived: all is decided and written of sources that were listed, as a
        whole, at `as_of` (time.monotonic()), and of what they delivered since."""
        since = self._looked if self._waiting else self._renewed
        self._looked = now
        ran_out = now.boottime_ns - since.boottime_ns > self._gap_ns
        if ran_out:
            self._required_ns = min(since.monotonic_ns + self._gap_ns, now.monotonic_ns)
        if as_of * 1e9 < self._required_ns:
            self._waiting = True
            return Judgement.RELIST if ran_out else Judgement.WAIT
        self._waiting = False
        self._renewed = Clock(sent_ns, sent_ns + now.boottime_ns - now.monotonic_ns)
        return Judgement.RENEW
