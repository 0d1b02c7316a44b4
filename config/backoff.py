"""How long to wait before the next attempt. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Backoff(NamedTuple):
    """Exponential back-off with jitter, in seconds."""

    first: float
    longest: float

    def seconds(self, failures: int, jitter: float) -> float:
        """The wait after `failures` failures in a row (1 or more), which doubles with each failure.

        `jitter` (0 to 1) spreads it between one half and the whole, so that clients that failed together do not all
        come back at the same moment.
        """
        return float(min(self.first * 2 ** min(failures - 1, 16), self.longest) * (0.5 + jitter / 2))
