"""The maps `frontends`, `backends` and `members`, and the order in which their rows change.

MapTables owns the instance.

One update switches a frontend from its former row to the new one. Everything that the new row needs is written before
the switch (`_write_prerequisites`), and what only the former row needed is removed after it (`_remove_leftovers`). From
then on the slots of the former backends may be used again: a program that still holds the former row finds a later
generation in them, and starts over.

New backends are written beside the present ones, for as many frontends at a time as there is room, and the slots that
become free are the room for the next frontends. Where this is not enough, these are tried in order:
    1. When the wanted backends are adjacent in the frontend's present place, the frontend stays there with a shorter
       row.
    2. The frontend keeps working with one of the backends that stay, so that the slots of the others become free.
    3. The frontend is removed until its new row is written. Clients take the normal way for some microseconds (P7),
       which is better than a policy that is not in force. This happens only when the change leaves no slot free at
       all, or when none of the frontend's backends stays.
Free slots that are scattered are joined by moving the frontends between them, each with one switch.

A row that stays in its place also gets a new generation, because sockets and clients use the generation to tell
whether their backend is still in use. Its backends keep the generation with which they were written
(FrontendRow.backends_generation).
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from itertools import pairwise
from typing import TypeAlias

from actors.writing.address_filter import AddressFilter
from actors.writing.policy_write import FrontendChange
from actors.writing.room import part_that_stays
from actors.writing.slots import Slots
from bpf.maps.packing import backend_bits, filter_bits, pack_backends, pack_frontend, pack_frontend_row
from bpf.maps.pinned_maps import PinnedMaps
from bpf.maps.rows import FrontendRow
from config.domain.addresses import Endpoint, Frontend

_Placed: TypeAlias = tuple[FrontendRow, tuple[Endpoint, ...]]

BATCH = 4096
"""At most about this many backends are written before the frontends that need them are switched, so that no frontend
waits for all the others."""


class FrontendRows:
    """Mirror of the maps, which are read once. The caller of `install` has made sure that everything fits."""

    def __init__(self, maps: PinnedMaps) -> None:
        self._maps = maps
        self.rows: dict[Frontend, FrontendRow] = {}
        self.backends: dict[Frontend, tuple[Endpoint, ...]] = {}
        """Frontend -> the backends in the slots that its row names."""
        self._places: dict[int, Frontend] = {}
        """Index of a frontend's first slot -> the frontend."""
        self._owned: defaultdict[int, set[Frontend]] = defaultdict(set)
        """Policy id -> its frontends."""
        self._reduced: dict[Frontend, tuple[Endpoint, ...]] = {}
        """Frontends that temporarily work with a part of their backends -> all the backends that they had."""
        self._filter = AddressFilter(maps)
        self._slots = Slots(maps["backends"].max_entries)
        self._generation = 0
        self._backends_removed = False
        for row in list(maps.frontend_rows()):
            backends = maps.backends_of(row)
            if len(backends) == row.count and self._slots.reserve(row.first, row.count):
                self._note(row, backends)
            else:  # somebody else has damaged the row; it is written again if a policy asks for it
                maps.remove_frontend(row.frontend)
        self._adopt_members()
        self._filter.write_all()

    def _adopt_members(self) -> None:
        """Makes `members` match the frontends. An agent that was killed during a change may have left too many or too
        few."""
        wanted = {(frontend, backend) for frontend, backends in self.backends.items() for backend in backends}
        present = self._maps.members()
        self._maps.write_members(wanted - present)
        for frontend, backend in present - wanted:
            self._maps.remove_member(frontend, backend)
        for frontend, backend in wanted:
            self._filter.add(backend_bits(backend, frontend.protocol))

    @property
    def policy_ids(self) -> AbstractSet[int]:
        """Policies that have frontends."""
        return self._owned.keys()

    @property
    def used_backends(self) -> int:
        return self._slots.used

    def owned_by(self, policy_id: int) -> frozenset[Frontend]:
        return frozenset(self._owned.get(policy_id, ()))

    def take_backends_removed(self) -> bool:
        """Returns whether any frontend has lost a backend since the last call."""
        removed, self._backends_removed = self._backends_removed, False
        return removed

    def remove(self, frontends: Iterable[Frontend]) -> None:
        had = {frontend: self._all_backends(frontend) for frontend in frontends}
        for frontend in had:
            self._maps.remove_frontend(frontend)
            self._forget(self.rows[frontend])
        self._remove_leftovers(had)

    def install(self, changes: Iterable[FrontendChange]) -> dict[int, str]:
        """Writes the rows of these frontends. Returns the policies that the kernel refused a row of -> the reason."""
        refused: dict[int, str] = {}
        # Frontends that do not grow come first, because they may leave room to the others.
        waiting = sorted(changes, key=lambda change: len(change.desired.backends) > self._present_count(change))
        left = self._place(waiting, refused)
        remaining = deque(self._place(left, refused))  # in the places that the others have left
        while remaining:
            self._make_room(remaining, refused)
            first = remaining.popleft()
            if not self.is_installed(first):
                self._place([first], refused)
        return refused

    def is_installed(self, change: FrontendChange) -> bool:
        frontend, backends = change.desired.frontend, change.desired.backends
        row = self.rows.get(frontend)
        if row is None or self.backends[frontend] != backends:
            return False
        return row == self._wanted_row(change, generation=row.generation, like=row)

    def _wanted_row(self, change: FrontendChange, *, generation: int, like: FrontendRow) -> FrontendRow:
        """Returns the wanted row, in the place of the row `like`."""
        return change.write.row(
            change.desired.frontend,
            generation=generation,
            first=like.first,
            count=like.count,
            backends_generation=like.backends_generation,
        )

    def _present_count(self, change: FrontendChange) -> int:
        return len(self.backends.get(change.desired.frontend, ()))

    # --- where there is room beside the present rows -----------------------------------------------------------------

    def _place(self, changes: Sequence[FrontendChange], refused: dict[int, str]) -> list[FrontendChange]:
        """Returns the changes that found no room, even after those before them had left theirs."""
        batch: list[_Placed] = []
        slots = 0
        left = []
        for change in changes:
            backends = change.desired.backends
            first = self._slots.take(len(backends))
            if batch and (first is None or slots >= BATCH):
                self._switch(batch, refused)
                batch, slots = [], 0
                first = self._slots.take(len(backends)) if first is None else first
            if first is None:
                left.append(change)
                continue
            generation = self._next_generation()
            row = change.write.row(
                change.desired.frontend,
                generation=generation,
                first=first,
                count=len(backends),
                backends_generation=generation,
            )
            batch.append((row, backends))
            slots += len(backends)
        self._switch(batch, refused)
        return left

    def _next_generation(self) -> int:
        self._generation = max(self._generation + 1, time.monotonic_ns())
        return self._generation

    def _switch(self, placed: Sequence[_Placed], refused: dict[int, str], *, reduced: bool = False) -> None:
        """Switches each frontend to its new row. `reduced`: the row has only a part of the backends, temporarily."""
        if not placed:
            return
        self._write_prerequisites(placed)
        failed = self._write_rows([row for row, _ in placed])
        had: dict[Frontend, tuple[Endpoint, ...]] = {}
        for i, (row, backends) in enumerate(placed):
            if i in failed:
                refused[row.policy_id] = str(failed[i])
                self._slots.release(row.first, row.count)
                had[row.frontend] = backends
                continue
            had[row.frontend] = self._all_backends(row.frontend)
            if row.frontend in self.rows:
                self._forget(self.rows[row.frontend])
            self._note(row, backends)
            if reduced:
                self._reduced[row.frontend] = had[row.frontend]
        self._remove_leftovers(had)

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

    # --- what a frontend's row needs ---------------------------------------------------------------------------------

    def _write_prerequisites(self, placed: Sequence[_Placed]) -> None:
        """Call this before the rows are written."""
        self._maps["backends"].update_many(
            [each for row, backends in placed for each in pack_backends(row.backends_generation, row.first, backends)]
        )
        members = {
            (row.frontend, each)
            for row, backends in placed
            for each in set(backends) - set(self._all_backends(row.frontend))
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
            for each in set(former) - set(self._all_backends(frontend))
        ]
        self._backends_removed |= bool(gone)
        bits = {bit for frontend in had for bit in filter_bits(frontend)}
        for frontend, backend in gone:
            self._maps.remove_member(frontend, backend)
            self._filter.retire(backend_bits(backend, frontend.protocol))
        self._filter.clear_unused(bits)

    def _all_backends(self, frontend: Frontend) -> tuple[Endpoint, ...]:
        """Returns the backends of a frontend, including those that a reduced row leaves out. A frontend that is not
        installed has none."""
        return self._reduced.get(frontend, self.backends.get(frontend, ()))

    # --- where there is no room beside the present rows --------------------------------------------------------------

    def _make_room(self, waiting: Sequence[FrontendChange], refused: dict[int, str]) -> None:
        """Installs the first of these changes, none of which found room, or makes room for it."""
        first = waiting[0]
        need = len(first.desired.backends)
        part = self._part_that_stays(first)
        if part and part[1] == need:
            self._keep_part(first, part, refused)
            return
        for change in waiting:
            if self._slots.free >= need:
                break
            part = self._part_that_stays(change)
            if part and part[1] < self._present_count(change):
                self._keep_part(change, part, refused)
        for change in waiting:
            if self._slots.free >= need:
                break
            if change.desired.frontend in self.rows:
                self.remove([change.desired.frontend])
        self._compact(need, refused)

    def _part_that_stays(self, change: FrontendChange) -> tuple[int, int] | None:
        frontend = change.desired.frontend
        if frontend not in self.rows:
            return None
        return part_that_stays(self.backends[frontend], change.desired.backends)

    def _keep_part(self, change: FrontendChange, part: tuple[int, int], refused: dict[int, str]) -> None:
        """Lets the frontend work with a part of its present backends: with all that it wants, or temporarily with
        one."""
        frontend, wanted = change.desired.frontend, change.desired.backends
        row, had = self.rows[frontend], self._all_backends(frontend)
        index, number = part
        if number == len(wanted):
            self._rewrite(self._wanted_row(change, generation=row.generation, like=row), index, number)
            del self._reduced[frontend]  # the row is complete
            self._remove_leftovers({frontend: had})
            return
        place = self._slots.take(1)
        if place is None:
            self._rewrite(row, index, number)
        else:  # in another place, so that its own place becomes free as a whole
            generation = self._next_generation()
            one = replace(row, generation=generation, first=place, count=1, backends_generation=generation)
            self._switch([(one, self.backends[frontend][index : index + 1])], refused, reduced=True)

    def _rewrite(self, row: FrontendRow, index: int, number: int) -> None:
        """Rewrites the row in its place, temporarily with `number` of its backends, from `index` on."""
        former, backends, had = self.rows[row.frontend], self.backends[row.frontend], self._all_backends(row.frontend)
        part = replace(row, generation=self._next_generation(), first=row.first + index, count=number)
        self._maps.write_frontend(part)
        self._forget(former)
        self._slots.reserve(part.first, part.count)
        self._note(part, backends[index : index + number])
        self._reduced[row.frontend] = had

    def _compact(self, need: int, refused: dict[int, str]) -> None:
        """Joins free slots to a range of `need`. There are enough, since everything fits."""
        free = self._slots.stretch(need)
        rows = []
        for (start, length), (end, _) in pairwise(free):
            place = start + length
            while place < end:
                rows.append(self.rows[self._places[place]])
                place += rows[-1].count
        place = free[0][0]
        for row in rows:
            self._move(row, place, refused)
            place += row.count

    def _move(self, row: FrontendRow, place: int, refused: dict[int, str]) -> None:
        """Moves a frontend to a lower place, which may overlap its present one."""
        backends, reduced = self.backends[row.frontend], row.frontend in self._reduced
        step = row.first - place
        if step < row.count:
            self._rewrite(row, row.count - step, step)
        self._slots.reserve(place, row.count)
        generation = self._next_generation()
        moved = replace(row, generation=generation, first=place, backends_generation=generation)
        self._switch([(moved, backends)], refused, reduced=reduced)

    # --- the mirror -------------------------------------------------------------------------------------------------

    def _note(self, row: FrontendRow, backends: tuple[Endpoint, ...]) -> None:
        self.rows[row.frontend] = row
        self.backends[row.frontend] = backends
        self._places[row.first] = row.frontend
        self._owned[row.policy_id].add(row.frontend)
        self._filter.add(filter_bits(row.frontend))
        self._generation = max(self._generation, row.generation)

    def _forget(self, row: FrontendRow) -> None:
        del self.rows[row.frontend], self.backends[row.frontend], self._places[row.first]
        self._reduced.pop(row.frontend, None)
        self._owned[row.policy_id].discard(row.frontend)
        if not self._owned[row.policy_id]:
            del self._owned[row.policy_id]
        self._filter.drop(filter_bits(row.frontend))
        self._slots.release(row.first, row.count)
