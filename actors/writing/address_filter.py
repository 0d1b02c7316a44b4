"""The map `filter`: one row of bits that lets the programs leave nearly every call alone at once.

A bit is set before the first frontend or backend that needs it is written, and cleared after the last one is gone.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

from bpf.maps.pinned_maps import PinnedMaps

RETIRED = 1024
"""Number of removed backends that keep their bits. A socket that was redirected to such a backend may still connect to
the backend's own address, and the programs must notice."""


class AddressFilter:
    """Mirror of the row. `bpf.maps.packing` says which bits a frontend or a backend needs."""

    def __init__(self, maps: PinnedMaps) -> None:
        self._maps = maps
        self._row = bytearray(maps["filter"].row_size)
        self._users: Counter[int] = Counter()
        """Bit -> number of frontends and backends that need it."""
        self._retired: deque[tuple[int, int]] = deque()
        """Bits of removed backends, the oldest first."""

    def add(self, bits: Iterable[int]) -> None:
        """A frontend or a backend needs these bits."""
        self._users.update(bits)

    def drop(self, bits: Iterable[int]) -> None:
        """A frontend or a backend that needed these bits is gone."""
        for bit in bits:
            self._users[bit] -= 1
            if not self._users[bit]:
                del self._users[bit]

    def retire(self, bits: tuple[int, int]) -> None:
        """A backend is gone, but keeps its bits until RETIRED others have gone after it."""
        self._retired.append(bits)

    def write_all(self) -> None:
        """Writes the whole row, which an earlier agent may have left with other bits."""
        for bit in self._users:
            self._row[bit // 8] |= 1 << bit % 8
        self._maps.write_filter(self._row)

    def set(self, bits: Iterable[int]) -> None:
        """Sets these bits in the kernel's row."""
        missing = {bit for bit in bits if not self._has(bit)}
        for bit in missing:
            self._row[bit // 8] |= 1 << bit % 8
        if missing:
            self._maps.write_filter(self._row)

    def clear_unused(self, bits: Iterable[int]) -> None:
        """Clears these bits in the kernel's row, and the bits of the backends that were retired longest ago. Bits stay
        if a frontend or a backend still needs them."""
        candidates = set(bits)
        while len(self._retired) > RETIRED:
            oldest = self._retired.popleft()
            self.drop(oldest)
            candidates.update(oldest)
        unused = [bit for bit in candidates if not self._users[bit] and self._has(bit)]
        for bit in unused:
            self._row[bit // 8] &= ~(1 << bit % 8)
        if unused:
            self._maps.write_filter(self._row)

    def _has(self, bit: int) -> bool:
        return bool(self._row[bit // 8] >> bit % 8 & 1)
