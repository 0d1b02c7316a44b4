"""Which affinity rows are useless (P13), and the sweep that removes them. MapWriter owns the sweep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from actors.writing.map_tables import MapTables
from bpf.maps.packing import pack_affinity_key, unpack_affinity
from bpf.maps.rows import AffinityRow, FrontendRow
from config.domain.addresses import Endpoint, Frontend

SWEEP_SLICE = 512
"""Number of rows in one slice of a sweep, which takes about two milliseconds."""


def expired_rows(
    held: Iterable[AffinityRow],
    frontends: Mapping[Frontend, FrontendRow],
    backends: Mapping[Frontend, tuple[Endpoint, ...]],
    now_ns: int,
) -> Iterator[AffinityRow]:
    """Yields the rows that exceed the timeout of their frontend, or whose frontend or backend no longer exists.
    Pure."""
    for row in held:
        frontend = frontends.get(row.frontend)
        is_useful = (
            frontend is not None
            and row.is_fresh(frontend.affinity_seconds, now_ns)
            and row.backend in backends[row.frontend]
        )
        if not is_useful:
            yield row


class AffinitySweep:
    """Goes through the map `affinity` slice by slice, so that other work never waits for a whole sweep."""

    def __init__(self, tables: MapTables) -> None:
        self._tables = tables
        self._remaining: Iterator[AffinityRow] | None = None
        """Rows that the present sweep has not looked at; None when no sweep is running."""
        self._now_ns = 0
        """CLOCK_MONOTONIC at which the present sweep was requested."""
        self._next_ns: int | None = None
        """The same for a sweep that was requested during the present one."""

    def request(self, now_ns: int) -> bool:
        """Returns True when a sweep begins now, and False when it has to follow the one that is running."""
        if self._remaining is not None:
            self._next_ns = now_ns
            return False
        self._remaining, self._now_ns = self._tables.maps.affinity_rows(), now_ns
        return True

    def run_slice(self) -> bool:
        """Looks at the next slice. Returns whether another one follows."""
        assert self._remaining is not None
        rows = list(islice(self._remaining, SWEEP_SLICE))
        for row in self._expired(rows):
            self._delete_expired(row)
        if len(rows) == SWEEP_SLICE:
            return True
        self._remaining = None
        if self._next_ns is None:
            return False
        next_ns, self._next_ns = self._next_ns, None
        return self.request(next_ns)

    def _expired(self, rows: Iterable[AffinityRow]) -> Iterator[AffinityRow]:
        return expired_rows(rows, self._tables.frontends, self._tables.backends, self._now_ns)

    def _delete_expired(self, row: AffinityRow) -> None:
        """A program may renew the row at any time: after it was read, and even between a second reading and the
        removal. So check the row that was removed. If it had been renewed, put it back, unless the client has a new row
        by then."""
        affinity, key = self._tables.maps["affinity"], pack_affinity_key(row.frontend, row.client_netns)
        if self._is_expired(key, affinity.lookup(key)):
            removed = affinity.take(key)
            if removed is not None and not self._is_expired(key, removed):
                affinity.add(key, removed)

    def _is_expired(self, key: bytes, value: bytes | None) -> bool:
        return value is not None and any(self._expired([unpack_affinity(key, value)]))
