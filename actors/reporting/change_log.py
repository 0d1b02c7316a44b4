"""Which changes of policies are logged at once, and which are deferred. Pure; the clock is passed in.

When a backend keeps failing and recovering, the state of its policy changes all the time. The first changes of a policy
are logged as they come, and so is each line that is new. A line that was logged recently is deferred, and logged later
with the number of changes that were skipped. So the last line about a policy always shows its present state.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from actors.framework.rates import TokenBucket
from config.domain.ids import PolicyKey
from config.wording import count

BURST = 5.0
LINES_PER_SECOND = 1 / 10
"""About one subject, once its burst is used up."""
MAX_TEXTS = 64
"""Number of different lines about one subject that are logged at once while it changes often."""

Subject: TypeAlias = PolicyKey | int
"""A policy whose state changes, or the id of a policy that reaches its limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    level: int
    text: str


@dataclass(slots=True)
class _Recent:
    """What was logged, and is to be logged, about one subject."""

    bucket: TokenBucket = field(default_factory=lambda: TokenBucket(LINES_PER_SECOND, BURST))
    deferred: Line | None = None
    """The newest line that has not been logged."""
    skipped: int = 0
    """Number of lines that will not be logged, because `deferred` is newer."""
    level: int = 0
    """The highest level among the skipped lines."""
    logged: set[str] = field(default_factory=set)


class ChangeLog:
    def __init__(self) -> None:
        self._recent: dict[Subject, _Recent] = {}
        """The subjects about which something was logged recently or was deferred."""

    def changed(self, subject: Subject, line: Line, now: float) -> Iterable[Line]:
        """Notes a change, and returns what to log now."""
        recent = self._recent.setdefault(subject, _Recent())
        if recent.deferred is not None:
            recent.skipped += 1
            recent.level = max(recent.level, recent.deferred.level)
        recent.deferred = line
        return self._lines(recent, now)

    def due(self, now: float) -> list[Line]:
        """Returns the deferred lines that are due. Call it from time to time."""
        lines = [line for recent in self._recent.values() for line in self._lines(recent, now)]
        idle = [key for key, each in self._recent.items() if each.deferred is None and each.bucket.is_full(now)]
        for key in idle:
            del self._recent[key]
        return lines

    def _lines(self, recent: _Recent, now: float) -> list[Line]:
        line = recent.deferred
        if line is None:
            return []
        is_new = line.text not in recent.logged and len(recent.logged) < MAX_TEXTS
        if not recent.bucket.take(now) and not is_new:
            return []
        recent.logged.add(line.text)
        if recent.skipped:
            text = (
                f"{line.text} ({count(recent.skipped, 'change')} before this one not logged, because they are frequent)"
            )
            line = replace(line, text=text, level=max(line.level, recent.level))
        recent.deferred, recent.skipped, recent.level = None, 0, 0
        return [line]
