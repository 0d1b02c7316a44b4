"""How long to wait before the next attempt. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Backoff(NamedTuple):
    """Exponential back-off with jitter, in seconds."""

    first: float
    longest: float

    def seconds(self, failures: int, jitter: float, *, retry_after: float = 0.0) -> float:
        """The wait after `failures` failures in a row (1 or more), which doubles with each failure.

        `jitter` (0 to 1) spreads it between one half and the whole, so that clients that failed together do not all
        come back at the same moment. `retry_after` is the time that the server asks for, 0 if it asks for none: the
        wait is never shorter than this, and `jitter` makes it up to a quarter longer.
        """
        wait = min(self.first * 2 ** min(failures - 1, 16), self.longest) * (0.5 + jitter / 2)
        return float(max(wait, retry_after * (1 + jitter / 4)))
