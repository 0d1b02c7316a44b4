"""Which decisions about calls become records (`log.redirects`), and how many are lost. Pure; the clock is passed in."""

from __future__ import annotations

from actors.framework.rates import TokenBucket
from bpf.maps.rows import Decision

RECORDS_PER_SECOND = 100
"""About 30 KB a second. More would push the agent's own lines out of the node's log files within minutes."""
_LOST_SECONDS = 1.0
"""Between two records that say how many were lost."""


class RecordChoice:
    """To be used by one thread. Times are those of time.monotonic()."""

    def __init__(self, redirects: str) -> None:
        """`redirects` is `log.redirects`: `passes` or `all`."""
        self._passes_only = redirects == "passes"
        self._bucket = TokenBucket(RECORDS_PER_SECOND, RECORDS_PER_SECOND)
        self._lost = 0
        self._reported_at = 0.0

    def takes(self, decision: Decision, now: float) -> bool:
        """Whether the decision becomes a record. One that exceeds RECORDS_PER_SECOND counts as lost."""
        if self._passes_only and decision.reason is None:
            return False
        if self._bucket.take(now):
            return True
        self._lost += 1
        return False

    def add_lost(self, number: int) -> None:
        self._lost += number

    def take_lost(self, now: float) -> int:
        """Returns how many were lost since the last result that was not 0. For a second after such a result it is 0."""
        if not self._lost or now - self._reported_at < _LOST_SECONDS:
            return 0
        lost, self._lost, self._reported_at = self._lost, 0, now
        return lost
