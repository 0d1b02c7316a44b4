"""The maps `frontends`, `backends`, `members` and `filter`, and the order in which their rows change.

MapTables owns the instance.

A frontend row is switched by one update. What it needs is written before (`_write_needs`), what nothing needs any
longer goes after (`_drop_needs`): its former backends' slots may be given out again then, and a caller that meets a
later generation in one starts over.

New backends are placed beside the old ones, as many frontends at a time as find room; the places of the old ones are
the room for the next. Where that is not enough, in this order:
    1. A frontend whose wanted backends are side by side in its present place stays there, with a shorter row.
    2. A frontend goes on with one backend of those that stay, which gives the room of the others.
    3. The frontend is taken out until its new row is there: clients take the normal way for some microseconds (P7),
       which is better than a policy out of force. It happens only when the change leaves not one slot free, or when
       none of the backends stays.
Free slots that are scattered are brought together by moving the frontends between them, each by one switch.

A row that stays in its place gets a generation like any other, since sockets and clients remember by it that their
backend is in use; its slots keep the one under which they were written (FrontendRow.slots).
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from itertools import pairwise
from typing import TypeAlias

from actors.writing.room import Change, part_that_stays
from actors.writing.slots import Slots
from bpf.maps import PinnedMaps
from bpf.packing import backend_bits, filter_bits, pack_backends, pack_frontend, pack_frontend_row
from bpf.rows import FrontendRow
from config.domain.addresses import Endpoint, Frontend

_Placed: TypeAlias = tuple[FrontendRow, tuple[Endpoint, ...]]

RETIRED = 1024
"""Backends that keep their bits in the filter after their end: a socket that was redirected to one may yet turn to the
backend's own address, and the programs must notice."""
BATCH = 4096
"""Backends written before the frontends that need them are switched, at most: nobody waits for all the others'."""


class FrontendRows:
    """Mirror of the maps, read from them once. Whoever calls `install` has made sure that everything fits."""

    def __init__(self, maps: PinnedMaps) -> None:
        self._maps = maps
        self.rows: dict[Frontend, FrontendRow] = {}
        self.backends: dict[Frontend, tuple[Endpoint, ...]] = {}
        """In the slots that the row names."""
        self._places: dict[int, Frontend] = {}
        """First of its slots -> frontend."""
        self._owned: defaultdict[int, set[Frontend]] = defaultdict(set)
        """Service id -> its frontends."""
        self._former: dict[Frontend, tuple[Endpoint, ...]] = {}
        """Frontends that go on with a part of their backends for now -> those that they had before."""
        self._filter = bytearray(maps["filter"].row_size)
        """The map's one row: a bit is set before the first frontend or backend that has it is there, until the last is
        gone."""
        self._filter_users: Counter[int] = Counter()
        """Bit of the filter -> number of frontends and backends that have it."""
        self._retired: deque[tuple[int, int]] = deque()
        """The bits of backends that are gone, the oldest first."""
        self._slots = Slots(maps["backends"].max_entries)
        self._generation = 0
        self._backends_removed = False
        for row in list(maps.frontend_rows()):
            backends = maps.backends_of(row)
            if len(backends) == row.count and self._slots.reserve(row.first, row.count):
                self._note(row, backends)
            else:  # damaged from outside; it is written again when it is desired
                maps.remove_frontend(row.frontend)
        self._adopt_members()
        for bit in self._filter_users:
            self._filter[bit // 8] |= 1 << bit % 8
        maps.write_filter(self._filter)

    def _adopt_members(self) -> None:
        """Of the frontends that are there; an agent that was killed in the midst of a change may have left others."""
        wanted = {(frontend, backend) for frontend, backends in self.backends.items() for backend in backends}
        present = self._maps.members()
        self._maps.write_members(wanted - present)
        for frontend, backend in present - wanted:
            self._maps.remove_member(frontend, backend)
        for frontend, backend in wanted:
            self._filter_users.update(backend_bits(backend, frontend.protocol))

    @property
    def policy_ids(self) -> AbstractSet[int]:
        """Those that have frontends."""
        return self._owned.keys()

    @property
    def used_backends(self) -> int:
        return self._slots.used

    def owned_by(self, policy_id: int) -> frozenset[Frontend]:
        return frozenset(self._owned.get(policy_id, ()))

    def take_backends_removed(self) -> bool:
        """Whether any frontend lost a backend since the last time that this was asked."""
        removed, self._backends_removed = self._backends_removed, False
        return removed

    def remove(self, frontends: Iterable[Frontend]) -> None:
        had = {frontend: self._had(frontend) for frontend in frontends}
        for frontend in had:
            self._maps.remove_frontend(frontend)
            self._forget(self.rows[frontend])
        self._drop_needs(had)

    def install(self, changes: Iterable[Change]) -> dict[int, str]:
        """Writes these frontends' rows. Returns the policy ids of which the kernel refused a row, and why."""
        refused: dict[int, str] = {}
        # What gives room comes first.
        waiting = sorted(changes, key=lambda change: len(change.desired.backends) > self._count(change))
        left = deque(self._place(self._place(waiting, refused), refused))  # the second time in the others' old places
        while left:
            self._make_room(left, refused)
            first = left.popleft()
            if not self.holds(first):
                self._place([first], refused)
        return refused

    def holds(self, change: Change) -> bool:
        """Whether it is written already."""
        frontend, backends = change.desired.frontend, change.desired.backends
        row = self.rows.get(frontend)
        if row is None or self.backends[frontend] != backends:
            return False
        return row == self._row(change, generation=row.generation, like=row)

    def _row(self, change: Change, *, generation: int, like: FrontendRow) -> FrontendRow:
        """What is wanted, in the place of a row that is there."""
        return change.write.row(
            change.desired.frontend,
            generation=generation,
            first=like.first,
            count=like.count,
            backends_generation=like.backends_generation,
        )

    def _count(self, change: Change) -> int:
        return len(self.backends.get(change.desired.frontend, ()))

    # --- beside what is there ---------------------------------------------------------------------------------------

    def _place(self, changes: Sequence[Change], refused: dict[int, str]) -> list[Change]:
        """Returns those that found no room, even after the others gave theirs back."""
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

    def _switch(self, placed: Sequence[_Placed], refused: dict[int, str], *, for_now: bool = False) -> None:
        """From the former row to the new one, each by one update. `for_now`: the other backends come back at once."""
        if not placed:
            return
        self._write_needs(placed)
        failed = self._write_rows([row for row, _ in placed])
        had: dict[Frontend, tuple[Endpoint, ...]] = {}
        for i, (row, backends) in enumerate(placed):
            if i in failed:
                refused[row.policy_id] = str(failed[i])
                self._slots.release(row.first, row.count)
                had[row.frontend] = backends
                continue
            had[row.frontend] = self._had(row.frontend)
            if row.frontend in self.rows:
                self._forget(self.rows[row.frontend])
            self._note(row, backends)
            if for_now:
                self._former[row.frontend] = had[row.frontend]
        self._drop_needs(had)

    def _write_rows(self, rows: Sequence[FrontendRow]) -> dict[int, OSError]:
        """Those that the kernel refused, by their index."""
        packed = [(pack_frontend(row.frontend), pack_frontend_row(row)) for row in rows]
        try:
            self._maps["frontends"].update_many(packed)
        except OSError:
            failed = {}
            for i, (key, value) in enumerate(packed):
                try:
                    self._maps["frontends"].update(key, value)
                except OSError as error:
                    failed[i] = error
            return failed
        return {}

    # --- what a frontend row needs ----------------------------------------------------------------------------------

    def _write_needs(self, placed: Sequence[_Placed]) -> None:
        """Before these rows are there."""
        self._maps["backends"].update_many(
            [each for row, backends in placed for each in pack_backends(row.backends_generation, row.first, backends)]
        )
        members = {
            (row.frontend, each) for row, backends in placed for each in set(backends) - set(self._had(row.frontend))
        }
        self._maps.write_members(members)
        bits = {bit for row, _ in placed for bit in filter_bits(row.frontend)}
        for frontend, backend in members:
            bits.update(backend_bits(backend, frontend.protocol))
            self._filter_users.update(backend_bits(backend, frontend.protocol))
        new = {bit for bit in bits if not self._filter_has(bit)}
        for bit in new:
            self._filter[bit // 8] |= 1 << bit % 8
        if new:
            self._maps.write_filter(self._filter)

    def _drop_needs(self, had: Mapping[Frontend, tuple[Endpoint, ...]]) -> None:
        """After rows were replaced or removed: `had` tells the backends of each before that, `_had` those of now."""
        gone = [(frontend, each) for frontend, former in had.items() for each in set(former) - set(self._had(frontend))]
        self._backends_removed |= bool(gone)
        bits = {bit for frontend in had for bit in filter_bits(frontend)}
        for frontend, backend in gone:
            self._maps.remove_member(frontend, backend)
            self._retired.append(backend_bits(backend, frontend.protocol))
        while len(self._retired) > RETIRED:
            oldest = self._retired.popleft()
            self._give_up(oldest)
            bits.update(oldest)
        unused = [bit for bit in bits if not self._filter_users[bit] and self._filter_has(bit)]
        for bit in unused:
            self._filter[bit // 8] &= ~(1 << bit % 8)
        if unused:
            self._maps.write_filter(self._filter)

    def _filter_has(self, bit: int) -> bool:
        return bool(self._filter[bit // 8] >> bit % 8 & 1)

    def _had(self, frontend: Frontend) -> tuple[Endpoint, ...]:
        """Its backends, those that are away for a moment included; none where it is not there."""
        return self._former.get(frontend, self.backends.get(frontend, ()))

    # --- where there is no room beside it ---------------------------------------------------------------------------

    def _make_room(self, waiting: Sequence[Change], refused: dict[int, str]) -> None:
        """So that the first of them, all of which found no room, is written or has a place."""
        first = waiting[0]
        need = len(first.desired.backends)
        part = self._part_that_stays(first)
        if part and part[1] == need:
            self._stay(first, part, refused)
            return
        for change in waiting:
            if self._slots.free >= need:
                break
            part = self._part_that_stays(change)
            if part and part[1] < self._count(change):
                self._stay(change, part, refused)
        for change in waiting:
            if self._slots.free >= need:
                break
            if change.desired.frontend in self.rows:
                self.remove([change.desired.frontend])
        self._gather(need, refused)

    def _part_that_stays(self, change: Change) -> tuple[int, int] | None:
        frontend = change.desired.frontend
        if frontend not in self.rows:
            return None
        return part_that_stays(self.backends[frontend], change.desired.backends)

    def _stay(self, change: Change, part: tuple[int, int], refused: dict[int, str]) -> None:
        """Goes on with a part of its backends: all that it wants, or one for now."""
        frontend, wanted = change.desired.frontend, change.desired.backends
        row, had = self.rows[frontend], self._had(frontend)
        index, number = part
        if number == len(wanted):
            self._rewrite(self._row(change, generation=row.generation, like=row), index, number)
            del self._former[frontend]
            self._drop_needs({frontend: had})
            return
        place = self._slots.take(1)
        if place is None:
            self._rewrite(row, index, number)
        else:  # so that its own place becomes free as a whole
            generation = self._next_generation()
            one = replace(row, generation=generation, first=place, count=1, backends_generation=generation)
            self._switch([(one, self.backends[frontend][index : index + 1])], refused, for_now=True)

    def _rewrite(self, row: FrontendRow, index: int, number: int) -> None:
        """In its place, with the backends from `index` on, for now."""
        former, backends, had = self.rows[row.frontend], self.backends[row.frontend], self._had(row.frontend)
        part = replace(row, generation=self._next_generation(), first=row.first + index, count=number)
        self._maps.write_frontend(part)
        self._forget(former)
        self._slots.reserve(part.first, part.count)
        self._note(part, backends[index : index + number])
        self._former[row.frontend] = had

    def _gather(self, need: int, refused: dict[int, str]) -> None:
        """Brings together as many free slots, of which there are enough, since everything fits."""
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
        """To a lower place, where it may overlap its present one."""
        backends, for_now = self.backends[row.frontend], row.frontend in self._former
        step = row.first - place
        if step < row.count:
            self._rewrite(row, row.count - step, step)
        self._slots.reserve(place, row.count)
        generation = self._next_generation()
        moved = replace(row, generation=generation, first=place, backends_generation=generation)
        self._switch([(moved, backends)], refused, for_now=for_now)

    # --- the mirror -------------------------------------------------------------------------------------------------

    def _note(self, row: FrontendRow, backends: tuple[Endpoint, ...]) -> None:
        self.rows[row.frontend] = row
        self.backends[row.frontend] = backends
        self._places[row.first] = row.frontend
        self._owned[row.policy_id].add(row.frontend)
        self._filter_users.update(filter_bits(row.frontend))
        self._generation = max(self._generation, row.generation)

    def _forget(self, row: FrontendRow) -> None:
        del self.rows[row.frontend], self.backends[row.frontend], self._places[row.first]
        self._former.pop(row.frontend, None)
        self._owned[row.policy_id].discard(row.frontend)
        if not self._owned[row.policy_id]:
            del self._owned[row.policy_id]
        self._give_up(filter_bits(row.frontend))
        self._slots.release(row.first, row.count)

    def _give_up(self, bits: Iterable[int]) -> None:
        for bit in bits:
            self._filter_users[bit] -= 1
            if not self._filter_users[bit]:
                del self._filter_users[bit]
