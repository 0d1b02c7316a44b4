"""How long to wait before the next try. Pure."""

from __future__ import annotations


def backoff_seconds(failures: int, jitter: float, *, first: float, longest: float) -> float:
    """After so many failures in a row (1 or more): twice as long each time, between half of it and all of it by
    `jitter` (0 to 1), so that many who failed together do not come back together."""
    return float(min(first * 2 ** min(failures - 1, 16), longest) * (0.5 + jitter / 2))
