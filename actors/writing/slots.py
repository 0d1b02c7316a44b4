"""Which ranges of the array `backends` are free. Pure; FrontendMirror owns the only instance."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import chain


class Slots:
    """Gives out ranges of 0..size-1 in turn (next fit), so that a freed range stays unused for as long as possible."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free: list[tuple[int, int]] = [(0, size)]
        """Start and length of each free range, sorted. No two of them are adjacent."""
        self._cursor = 0
        self._too_long = size + 1
        """No free range has this many slots or more, so there is no need to search for one."""
        self.used = 0

    @property
    def free(self) -> int:
        """Number of slots in all free ranges together."""
        return self._size - self.used

    def take(self, count: int) -> int | None:
        """Takes `count` adjacent slots. Returns the first, or None when no free range is long enough."""
        if count >= self._too_long:
            return None
        for start, length in chain(self._free_from(self._cursor), self._free):
            if length >= count:
                self.reserve(start, count)
                self._cursor = start + count
                return start
        self._too_long = count
        return None

    def _free_from(self, cursor: int) -> Iterator[tuple[int, int]]:
        """Yields the free ranges at and after the cursor. A generator, since usually the first one fits."""
        i = max(bisect_left(self._free, (cursor + 1, 0)) - 1, 0)
        while i < len(self._free):
            start, length = self._free[i]
            begin = max(start, cursor)
            yield begin, start + length - begin
            i += 1

    def reserve(self, start: int, count: int) -> bool:
        """Takes exactly this range. Returns False when it is not entirely free."""
        i = bisect_left(self._free, (start + 1, 0)) - 1
        if i < 0:
            return False
        begin, length = self._free[i]
        if start + count > begin + length:
            return False
        parts = [(begin, start - begin), (start + count, begin + length - start - count)]
        self._free[i : i + 1] = [part for part in parts if part[1]]
        self.used += count
        return True

    def release(self, start: int, count: int) -> None:
        """Frees a range that was taken, or a part of one."""
        i = bisect_left(self._free, (start, 0))
        end = start + count
        self.used -= count
        self._too_long = self._size + 1
        if i < len(self._free) and self._free[i][0] == end:
            end += self._free[i][1]
            del self._free[i]
        if i and sum(self._free[i - 1]) == start:
            i -= 1
            start = self._free[i][0]
            del self._free[i]
        self._free.insert(i, (start, end - start))

    def stretch(self, count: int) -> list[tuple[int, int]]:
        """Returns successive free ranges that have at least `count` slots together, with the fewest taken slots between
        them. Moving what is between them joins them. Empty when fewer slots are free."""
        best: tuple[int, int, int] | None = None
        first, free = 0, 0
        for last, (start, length) in enumerate(self._free):
            free += length
            while free - self._free[first][1] >= count:
                free -= self._free[first][1]
                first += 1
            if free >= count:
                taken = start + length - self._free[first][0] - free
                best = min(best, (taken, first, last)) if best else (taken, first, last)
        return self._free[best[1] : best[2] + 1] if best else []
