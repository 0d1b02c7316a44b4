"""The maps `frontends`, `backends`, `members` and `filter`, and the order in which their rows change.

One update switches a frontend from its former row to the new one. Everything that the new row needs is written before
the switch (`_write_prerequisites`), and what only the former row needed is removed after it (`_remove_leftovers`). From
then on the slots of the former backends may be used again: a program that still holds the former row finds a later
generation in them, and starts over.

A row that stays in its place also gets a new generation, because sockets and clients use the generation to tell
whether their backend is still in use. Its backends keep the generation with which they were written
(FrontendRow.backends_generation).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from actors.writing.address_filter import AddressFilter
from actors.writing.frontend_mirror import FrontendMirror
from bpf.maps.hashes import backend_bits, filter_bits
from bpf.maps.packing import pack_backends, pack_frontend, pack_frontend_row
from bpf.maps.pinned_maps import PinnedMaps
from bpf.maps.rows import FrontendRow
from config.domain.addresses import Endpoint, Frontend

PlacedRow: TypeAlias = tuple[FrontendRow, tuple[Endpoint, ...]]
"""A row, and the backends for the slots that it names. The slots are taken (`FrontendMirror.slots`)."""


class FrontendWriter:
    """Reads the maps once, and mirrors them from then on. MapTables owns the instance."""

    def __init__(self, maps: PinnedMaps) -> None:
        self._maps = maps
        self.mirror = FrontendMirror(maps["backends"].max_entries)
        self._filter = AddressFilter(maps)
        self._generation = 0
        self._backends_removed = False
        for row in list(maps.frontend_rows()):
            backends = maps.backends_of(row)
            if len(backends) == row.count and self.mirror.slots.reserve(row.first, row.count):
                self._note(row, backends)
            else:  # somebody else has damaged the row; it is written again if a policy asks for it
                maps.remove_frontend(row.frontend)
        self._adopt_members()
        self._filter.write_all()

    def _adopt_members(self) -> None:
        """Makes `members` match the frontends. An agent that was killed during a change may have left too many or too
        few."""
        wanted = {(frontend, backend) for frontend, backends in self.mirror.backends.items() for backend in backends}
        present = self._maps.members()
        self._maps.write_members(wanted - present)
        for frontend, backend in present - wanted:
            self._maps.remove_member(frontend, backend)
        for frontend, backend in wanted:
            self._filter.add(backend_bits(backend, frontend.protocol))

    def take_backends_removed(self) -> bool:
        """Returns whether any frontend has lost a backend since the last call."""
        removed, self._backends_removed = self._backends_removed, False
        return removed

    def next_generation(self) -> int:
        """Returns a later one than any row has."""
        self._generation = max(self._generation + 1, time.monotonic_ns())
        return self._generation

    def remove(self, frontends: Iterable[Frontend]) -> None:
        had = {frontend: self.mirror.all_backends(frontend) for frontend in frontends}
        for frontend in had:
            self._maps.remove_frontend(frontend)
            self._forget(frontend)
        self._remove_leftovers(had)

    def switch(self, placed: Sequence[PlacedRow], *, reduced: bool = False) -> dict[int, str]:
        """Switches each frontend to its new row. `reduced`: the row has only a part of the backends, temporarily.

        Returns the policies that the kernel refused a row of -> the reason.
        """
        if not placed:
            return {}
        self._write_prerequisites(placed)
        failed = self._write_rows([row for row, _ in placed])
        had: dict[Frontend, tuple[Endpoint, ...]] = {}
        for i, (row, backends) in enumerate(placed):
            if i in failed:
                self.mirror.slots.release(row.first, row.count)
                had[row.frontend] = backends
                continue
            had[row.frontend] = self.mirror.all_backends(row.frontend)
            if row.frontend in self.mirror.rows:
                self._forget(row.frontend)
            self._note(row, backends)
            if reduced:
                self.mirror.reduced[row.frontend] = had[row.frontend]
        self._remove_leftovers(had)
        return {placed[i][0].policy_id: str(error) for i, error in failed.items()}

    def shorten(self, row: FrontendRow, index: int, number: int, *, reduced: bool) -> None:
        """Writes the row in the frontend's present place, with `number` of its present backends, from `index` on.
        `reduced` as for `switch`."""
        frontend = row.frontend
        had, backends = self.mirror.all_backends(frontend), self.mirror.backends[frontend][index : index + number]
        part = replace(row, generation=self.next_generation(), first=row.first + index, count=number)
        self._maps.write_frontend(part)
        self._forget(frontend)
        self.mirror.slots.reserve(part.first, part.count)
        self._note(part, backends)
        if reduced:
            self.mirror.reduced[frontend] = had
        else:
            self._remove_leftovers({frontend: had})

    def _write_rows(self, rows: Sequence[FrontendRow]) -> dict[int, OSError]:
        """Returns the errors of those that the kernel refused, by their index in `rows`."""
        packed = [(pack_frontend(row.frontend), pack_frontend_row(row)) for row in rows]
        try:
            self._maps["frontends"].update_many(packed)
        except OSError:  # find out which ones were refused
            failed = {}
            for i, (key, value) in enumerate(packed):
                try:
                    self._maps["frontends"].update(key, value)
                except OSError as error:
                    failed[i] = error
            return failed
        return {}

    def _write_prerequisites(self, placed: Sequence[PlacedRow]) -> None:
        """Call this before the rows are written."""
        self._maps["backends"].update_many(
            [each for row, backends in placed for each in pack_backends(row.backends_generation, row.first, backends)]
        )
        members = {
            (row.frontend, each)
            for row, backends in placed
            for each in set(backends) - set(self.mirror.all_backends(row.frontend))
        }
        self._maps.write_members(members)
        bits = {bit for row, _ in placed for bit in filter_bits(row.frontend)}
        for frontend, backend in members:
            bits.update(backend_bits(backend, frontend.protocol))
            self._filter.add(backend_bits(backend, frontend.protocol))
        self._filter.set(bits)

    def _remove_leftovers(self, had: Mapping[Frontend, tuple[Endpoint, ...]]) -> None:
        """Call this after rows were replaced or removed. `had`: frontend -> the backends that it had before."""
        gone = [
            (frontend, each)
            for frontend, former in had.items()
            for each in set(former) - set(self.mirror.all_backends(frontend))
        ]
        self._backends_removed |= bool(gone)
        bits = {bit for frontend in had for bit in filter_bits(frontend)}
        for frontend, backend in gone:
            self._maps.remove_member(frontend, backend)
            self._filter.retire(backend_bits(backend, frontend.protocol))
        self._filter.clear_unused(bits)

    def _note(self, row: FrontendRow, backends: tuple[Endpoint, ...]) -> None:
        self.mirror.note(row, backends)
        self._filter.add(filter_bits(row.frontend))
        self._generation = max(self._generation, row.generation)

    def _forget(self, frontend: Frontend) -> None:
        self.mirror.forget(frontend)
        self._filter.drop(filter_bits(frontend))
