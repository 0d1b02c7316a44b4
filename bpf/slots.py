"""Which ranges of the `backends` array are free. Pure; MapWriter owns the one instance."""

from __future__ import annotations

from bisect import bisect_left


class Slots:
    """Ranges of 0..size-1, given out in turn (next fit), so that a freed range rests for as long as possible."""

    def __init__(self, size: int) -> None:
        self._free: list[tuple[int, int]] = [(0, size)]
        """Start and length of each free range, sorted, none touching the next."""
        self._cursor = 0
        self.used = 0

    def take(self, count: int) -> int | None:
        """First of `count` adjacent slots, or None when no free range is that long."""
        begin = bisect_left(self._free, (self._cursor, 0))
        for i in [*range(begin, len(self._free)), *range(begin)]:
            start, length = self._free[i]
            if length >= count:
                self._replace(i, [(start + count, length - count)] if length > count else [])
                self._cursor = start + count
                self.used += count
                return start
        return None

    def reserve(self, start: int, count: int) -> bool:
        """Takes this very range; False when it is not free as a whole."""
        i = bisect_left(self._free, (start + 1, 0)) - 1
        if i < 0:
            return False
        begin, length = self._free[i]
        if start + count > begin + length:
            return False
        parts = [(begin, start - begin), (start + count, begin + length - start - count)]
        self._replace(i, [part for part in parts if part[1]])
        self.used += count
        return True

    def release(self, start: int, count: int) -> None:
        """Gives back a range that was taken."""
        i = bisect_left(self._free, (start, 0))
        end = start + count
        self.used -= count
        if i < len(self._free) and self._free[i][0] == end:
            end += self._free[i][1]
            del self._free[i]
        if i and sum(self._free[i - 1]) == start:
            i -= 1
            start = self._free[i][0]
            del self._free[i]
        self._free.insert(i, (start, end - start))

    def _replace(self, i: int, parts: list[tuple[int, int]]) -> None:
        self._free[i : i + 1] = parts
