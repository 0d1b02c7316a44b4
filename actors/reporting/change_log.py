"""Which changes of policies are logged at once, and which are put off (pure; the clock is passed in).

A backend that flaps changes its policy's state all the time. The first few changes of a policy are logged as they
come, and so is every line that says something new; what was said lately is said again only once in a while, with the
number of changes that it stands for. So the last line about a policy always is its present state.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from actors.framework.rates import TokenBucket
from config.domain.ids import PolicyKey

BURST = 5.0
LINES_PER_SECOND = 1 / 10
"""About one subject, once its burst is used up."""
MOST_TEXTS = 64
"""Different lines about one subject that are logged at once while it changes often."""

Subject: TypeAlias = PolicyKey | int
"""A policy, whose state changes, or the number of one that reaches its limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    level: int
    text: str


@dataclass(slots=True)
class _Recent:
    bucket: TokenBucket = field(default_factory=lambda: TokenBucket(LINES_PER_SECOND, BURST))
    waiting: Line | None = None
    """The newest line that was not logged."""
    left_out: int = 0
    """Lines that were not logged and will not be, since `waiting` is newer."""
    level: int = 0
    """The highest one among those left out."""
    said: set[str] = field(default_factory=set)
    """What was logged."""


class ChangeLog:
    def __init__(self) -> None:
        self._recent: dict[Subject, _Recent] = {}
        """Those about which something was logged lately, or is to be logged."""

    @property
    def remembered(self) -> int:
        """Of how many subjects something is kept."""
        return len(self._recent)

    def changed(self, subject: Subject, line: Line, now: float) -> Iterable[Line]:
        """What to log now of a change."""
        recent = self._recent.setdefault(subject, _Recent())
        if recent.waiting is not None:
            recent.left_out += 1
            recent.level = max(recent.level, recent.waiting.level)
        recent.waiting = line
        return self._lines(recent, now)

    def due(self, now: float) -> list[Line]:
        """What was put off and is to be logged now; to be asked from time to time."""
        lines = [line for recent in self._recent.values() for line in self._lines(recent, now)]
        idle = [key for key, each in self._recent.items() if each.waiting is None and each.bucket.is_full(now)]
        for key in idle:
            del self._recent[key]
        return lines

    def _lines(self, recent: _Recent, now: float) -> list[Line]:
        line = recent.waiting
        if line is None:
            return []
        is_new = line.text not in recent.said and len(recent.said) < MOST_TEXTS
        if not recent.bucket.take(now) and not is_new:
            return []
        recent.said.add(line.text)
        if recent.left_out:
            changes = "1 change" if recent.left_out == 1 else f"{recent.left_out} changes"
            text = f"{line.text} ({changes} before this one not logged, because they are frequent)"
            line = replace(line, text=text, level=max(line.level, recent.level))
        recent.waiting, recent.left_out, recent.level = None, 0, 0
        return [line]
