"""When each of many things is due next. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Schedule(Generic[T]):
    """Each item has at most one time."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._number_of: dict[T, int] = {}
        """Item -> number of its entry in the heap; entries with another number are out of date."""
        self._newest_number = 0

    def set(self, item: T, when: float) -> None:
        """Replaces the time that the item had."""
        self._newest_number += 1
        self._number_of[item] = self._newest_number
        heapq.heappush(self._heap, (when, self._newest_number, item))

    def cancel(self, item: T) -> None:
        self._number_of.pop(item, None)

    def earliest(self) -> float | None:
        """None when nothing is due."""
        while self._heap:
            when, number, item = self._heap[0]
            if self._number_of.get(item) == number:
                return when
            heapq.heappop(self._heap)
        return None

    def pop(self, until: float) -> list[T]:
        """Removes and returns the items that are due at `until` or before, in the order of their times."""
        due = []
        while (when := self.earliest()) is not None and when <= until:
            item = heapq.heappop(self._heap)[2]
            del self._number_of[item]
            due.append(item)
        return due


SLOTS = 10
"""Parts of an interval. Checks begin only at the start of a slot, many together, since waking up costs as much as
several checks."""
_GOLDEN = 0.618033988749895
"""The golden ratio's fraction: the fractions of its multiples are spread evenly over 0 to 1, however many there are."""


def first_time(number: int, interval: float, now: float) -> float:
    """When the check with this number begins for the first time, within the next interval. The slots of an interval are
    at the same times for all checks that have it."""
    slot = interval / SLOTS
    return (now // slot + 1 + int(number * _GOLDEN % 1.0 * SLOTS)) * slot


def next_time(due_at: float, interval: float, now: float) -> float:
    """When the check after the one at `due_at` begins. If several such times have passed already, it is the last of
    them, so that the others are skipped."""
    following = due_at + interval
    if now > following:
        following += (now - following) // interval * interval
    return following
