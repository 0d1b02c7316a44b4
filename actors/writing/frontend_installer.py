"""Finds a place in the map `backends` for the backends of each frontend, and makes room where there is none.

New backends are written beside the present ones, for as many frontends at a time as there is room, and the slots that
become free are the room for the next frontends. Where this is not enough, these are tried in order:
    1. When the wanted backends are adjacent in the frontend's present place, the frontend stays there with a shorter
       row.
    2. The frontend keeps working with one of the backends that stay, so that the slots of the others become free.
    3. The frontend is removed until its new row is written. Clients take the normal way for some microseconds (P7),
       which is better than a policy that is not in force. This happens only when the change leaves no slot free at
       all, or when none of the frontend's backends stays.
Free slots that are scattered are joined by moving the frontends between them, each with one switch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from actors.writing.frontend_writer import FrontendWriter, PlacedRow
from actors.writing.policy_write import FrontendChange
from bpf.maps.rows import FrontendRow
from config.domain.addresses import Endpoint

BATCH = 4096
"""At most about this many backends are written before the frontends that need them are switched, so that no frontend
waits for all the others."""


class FrontendInstaller:
    """The caller of `install` has made sure that everything fits."""

    def __init__(self, writer: FrontendWriter) -> None:
        self._writer = writer
        self._mirror = writer.mirror
        self._slots = writer.mirror.slots

    def install(self, changes: Iterable[FrontendChange]) -> dict[int, str]:
        """Writes the rows of these frontends that are not there yet. Returns the policies that the kernel refused a row
        of -> the reason."""
        refused: dict[int, str] = {}
        missing = [change for change in changes if not self._is_installed(change)]
        # Frontends that do not grow come first, because they may leave room to the others.
        waiting = sorted(missing, key=lambda change: len(change.desired.backends) > self._present_count(change))
        left = self._place(waiting, refused)
        remaining = deque(self._place(left, refused))  # in the places that the others have left
        while remaining:
            self._make_room(remaining, refused)
            first = remaining.popleft()
            if not self._is_installed(first):
                self._place([first], refused)
        return refused

    def _is_installed(self, change: FrontendChange) -> bool:
        frontend, backends = change.desired.frontend, change.desired.backends
        row = self._mirror.rows.get(frontend)
        if row is None or self._mirror.backends[frontend] != backends:
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
        return len(self._mirror.backends.get(change.desired.frontend, ()))

    # --- where there is room beside the present rows -----------------------------------------------------------------

    def _place(self, changes: Sequence[FrontendChange], refused: dict[int, str]) -> list[FrontendChange]:
        """Returns the changes that found no room, even after those before them had left theirs."""
        batch: list[PlacedRow] = []
        slots = 0
        left = []
        for change in changes:
            backends = change.desired.backends
            first = self._slots.take(len(backends))
            if batch and (first is None or slots >= BATCH):
                refused |= self._writer.switch(batch)
                batch, slots = [], 0
                first = self._slots.take(len(backends)) if first is None else first
            if first is None:
                left.append(change)
                continue
            generation = self._writer.next_generation()
            row = change.write.row(
                change.desired.frontend,
                generation=generation,
                first=first,
                count=len(backends),
                backends_generation=generation,
            )
            batch.append((row, backends))
            slots += len(backends)
        refused |= self._writer.switch(batch)
        return left

    # --- where there is no room beside the present rows --------------------------------------------------------------

    def _make_room(self, waiting: Sequence[FrontendChange], refused: dict[int, str]) -> None:
        """None of these changes found room. Installs the first in its frontend's present place if it fits there;
        otherwise makes room for it."""
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
            if change.desired.frontend in self._mirror.rows:
                self._writer.remove([change.desired.frontend])
        self._join_free_slots(need, refused)

    def _part_that_stays(self, change: FrontendChange) -> tuple[int, int] | None:
        frontend = change.desired.frontend
        if frontend not in self._mirror.rows:
            return None
        return part_that_stays(self._mirror.backends[frontend], change.desired.backends)

    def _keep_part(self, change: FrontendChange, part: tuple[int, int], refused: dict[int, str]) -> None:
        """Lets the frontend work with a part of its present backends: with all that it wants, or temporarily with
        one."""
        frontend, wanted = change.desired.frontend, change.desired.backends
        row = self._mirror.rows[frontend]
        index, number = part
        if number == len(wanted):
            final = self._wanted_row(change, generation=row.generation, like=row)
            self._writer.shorten(final, index, number, reduced=False)
            return
        slot = self._slots.take(1)
        if slot is None:
            self._writer.shorten(row, index, number, reduced=True)
        else:  # in another place, so that its own place becomes free as a whole
            generation = self._writer.next_generation()
            one = replace(row, generation=generation, first=slot, count=1, backends_generation=generation)
            backend = self._mirror.backends[frontend][index : index + 1]
            refused |= self._writer.switch([(one, backend)], reduced=True)

    def _join_free_slots(self, need: int, refused: dict[int, str]) -> None:
        """Joins free slots to a range of `need`. There are enough, since everything fits."""
        free = self._slots.stretch(need)
        rows = []
        for (start, length), (end, _) in pairwise(free):
            slot = start + length
            while slot < end:
                rows.append(self._mirror.row_at(slot))
                slot += rows[-1].count
        slot = free[0][0]
        for row in rows:
            self._move(row, slot, refused)
            slot += row.count

    def _move(self, row: FrontendRow, slot: int, refused: dict[int, str]) -> None:
        """Moves a frontend to a lower place, which begins at `slot` and may overlap its present one."""
        frontend = row.frontend
        backends, reduced = self._mirror.backends[frontend], frontend in self._mirror.reduced
        step = row.first - slot
        if step < row.count:
            self._writer.shorten(row, row.count - step, step, reduced=True)
        self._slots.reserve(slot, row.count)
        generation = self._writer.next_generation()
        moved = replace(row, generation=generation, first=slot, backends_generation=generation)
        refused |= self._writer.switch([(moved, backends)], reduced=reduced)


def part_that_stays(present: tuple[Endpoint, ...], wanted: tuple[Endpoint, ...]) -> tuple[int, int] | None:
    """Returns index and number of the present backends that a frontend can keep without a new place in the map.

    These are all wanted backends if they are adjacent, otherwise one that is both present and wanted. None when there
    is no such backend.
    """
    indexes = [i for i, backend in enumerate(present) if backend in wanted]
    if not indexes:
        return None
    first = indexes[0]
    return (first, len(wanted)) if present[first : first + len(wanted)] == wanted else (first, 1)
