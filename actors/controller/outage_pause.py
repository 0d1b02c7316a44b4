"""How long one kind of writes pauses while the API server is unavailable. Pure; the clock is passed in."""

from __future__ import annotations

from dataclasses import dataclass

from config.backoff import Backoff
from k8s.status.write_requests import WriteAnswer, WriteResult

_BACKOFF = Backoff(first=0.5, longest=30.0)


@dataclass(slots=True)
class OutagePause:
    failures: int = 0
    """Number of failures since the last success."""
    until: float = 0.0

    def note(self, answer: WriteAnswer, now: float, jitter: float) -> None:
        """Call it with each answer. `jitter` is 0 to 1."""
        if answer.result != WriteResult.UNAVAILABLE:
            self.failures, self.until = 0, 0.0
            return
        self.failures += 1
        self.until = now + _BACKOFF.seconds(self.failures, jitter, retry_after=answer.retry_after)
