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
