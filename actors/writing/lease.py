"""When the lease may be renewed (docs/decisions/0006-lease.md). Pure; MapWriter acts on the answer.

The lease says that the rows in the kernel follow from what the sources deliver. It runs out when the process is
stopped, when an actor is stuck, or when the machine sleeps, which only CLOCK_BOOTTIME shows.

The first probe after such a pause may arrive before the events that were missed. If it renewed the lease, calls might
be redirected to a backend that is long gone. So the sources are listed again, and the lease is renewed only when all of
them were read after its end. Until then calls take the normal way, however long the API server cannot be reached.

The lease stays in force while the API server is away or refuses us (`k8s.api.trouble.TroubleKind` says why).
"""

from __future__ import annotations

from enum import Enum, auto

from actors.writing.clocks import Clock

_GAP_SECONDS = 30.0
"""If the configuration turns the lease off, the sources are listed again after a pause of this length."""
_SHORTEST_GAP_SECONDS = 2.5
"""A shorter interval between two probes, which come each second, is no pause."""


class Judgement(Enum):
    RENEW = auto()
    RELIST = auto()
    """The lease ran out: end it, and list the sources again."""
    WAIT = auto()
    """The lease ran out, and the sources are being listed."""


class LeaseKeeper:
    """Lives as long as the process, so that a restarted MapWriter knows of a pause before its start."""

    def __init__(self, lease_seconds: int, now: Clock) -> None:
        self.lease_ns = lease_seconds * 1_000_000_000
        """0: the lease never runs out."""
        seconds = max(float(lease_seconds), _SHORTEST_GAP_SECONDS) if lease_seconds else _GAP_SECONDS
        self._gap_ns = int(seconds * 1e9)
        self._renewed_as_of = now
        """The time as of which the lease was last renewed; at first, the start of the process."""
        self._judged_at = now
        self._required_ns = 0
        """The sources must have been read at this time (CLOCK_MONOTONIC) or later."""
        self._waiting = False
        """Whether the lease ran out and the sources are being listed."""

    def judge(self, sent_ns: int, as_of: float, now: Clock) -> Judgement:
        """Call this when a probe arrives that was sent at `sent_ns`. The probe proves that everything that the sources
        delivered before has been decided and written, and that the oldest of their listings was read at `as_of`
        (time.monotonic())."""
        since = self._judged_at if self._waiting else self._renewed_as_of
        self._judged_at = now
        ran_out = now.boottime_ns - since.boottime_ns > self._gap_ns
        if ran_out:
            self._required_ns = min(since.monotonic_ns + self._gap_ns, now.monotonic_ns)
        if as_of * 1e9 < self._required_ns:
            self._waiting = True
            return Judgement.RELIST if ran_out else Judgement.WAIT
        self._waiting = False
        self._renewed_as_of = Clock(sent_ns, sent_ns + now.boottime_ns - now.monotonic_ns)
        return Judgement.RENEW
