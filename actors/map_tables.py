"""What is in the kernel maps, and the writes that bring it to what is desired. No actor: MapWriter owns the instance.

Order of writes (promise 2, rule P10): what a frontend row needs stands before the row does, and goes after it.
    counters, windows, policies, cgroups -> backends -> filter -> frontends;  removals the other way round.
A frontend row is switched by one update; its former backends keep their generation until their slots are given out
again, and a caller that meets a later generation there starts over.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass

from actors.messages import DesiredFrontend, DesiredPolicy
from bpf.maps import PinnedMaps, packed_backends
from bpf.rows import (
    PRESENT,
    SERVICE_ID,
    Endpoint,
    Frontend,
    FrontendFlag,
    FrontendRow,
    PolicyRow,
    backend_bits,
    filter_bits,
    pack_backend_cgroup,
    pack_frontend,
    pack_frontend_row,
    pack_member,
    pack_policy,
)
from bpf.slots import Slots


class MapFullError(Exception):
    """A policy does not fit; its text is for the operator."""

    def __init__(self, name: str, key: str, size: int, needed: int) -> None:
        super().__init__(
            f"the kernel map {name} has no room for the {needed} rows that the policy needs ({key} is {size}); "
            "it is tried again when there is room"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyWrite:
    """One policy's rows: what it asks for, with its Pods' cgroups found."""

    policy: DesiredPolicy
    cgroups: frozenset[int] = frozenset()
    levels: tuple[int, int] = (1, 0)
    """First and last cgroup level at which they may be met; none when the first is the greater."""

    def row(self, frontend: Frontend, *, generation: int, first: int, count: int) -> FrontendRow:
        policy = self.policy
        return FrontendRow(
            generation=generation,
            frontend=frontend,
            flags=FrontendFlag(0) if policy.redirect_from_host else FrontendFlag.NO_HOST,
            service_id=policy.service_id,
            first=first,
            count=count,
            limit=policy.limit,
            affinity_seconds=policy.affinity_seconds,
            skip_from=self.levels[0],
            skip_to=self.levels[1],
        )


_Placed = tuple[FrontendRow, tuple[Endpoint, ...]]


class MapTables:
    """Mirror of the maps, read from them once: this process is their one writer."""

    def __init__(self, maps: PinnedMaps) -> None:
        self.maps = maps
        self.frontends: dict[Frontend, FrontendRow] = {}
        self.backends: dict[Frontend, tuple[Endpoint, ...]] = {}
        self._owned: defaultdict[int, set[Frontend]] = defaultdict(set)
        """Service id -> its frontends."""
        self._filter = bytearray(maps["filter"].row_size)
        """The map's one row: a bit is set before the first frontend that has it is there, until the last is gone."""
        self._filter_users: Counter[int] = Counter()
        """Bit of the filter -> number of frontends that have it."""
        self._policies = maps.policy_rows()
        self._counted = set(maps.counters())
        self._limited = set(maps.windows())
        self._cgroups: defaultdict[int, set[int]] = defaultdict(set)
        """Service id -> ids of the cgroups that it does not redirect."""
        self._slots = Slots(maps["backends"].max_entries)
        self._generation = 0
        self._backends_removed = False
        for cgroup_id, service_id in maps.backend_cgroups():
            self._cgroups[service_id].add(cgroup_id)
        for row in list(maps.frontend_rows()):
            backends = maps.backends_of(row)
            if len(backends) == row.count and self._slots.reserve(row.first, row.count):
                self._note(row, backends)
            else:  # damaged from outside; it is written anew when it is desired
                maps.remove_frontend(row.frontend)
        for bit in self._filter_users:
            self._filter[bit // 8] |= 1 << bit % 8
        maps.write_filter(self._filter)

    @property
    def service_ids(self) -> set[int]:
        """All that have rows of any kind."""
        return self._counted | self._limited | set(self._policies) | set(self._owned) | set(self._cgroups)

    @property
    def used_backends(self) -> int:
        return self._slots.used

    def take_backends_removed(self) -> bool:
        """Whether any frontend lost a backend since the last time that this was asked."""
        removed, self._backends_removed = self._backends_removed, False
        return removed

    def apply(self, targets: Mapping[int, PolicyWrite | None], known: Container[int]) -> dict[int, str]:
        """Brings the rows of these service ids to their targets; None is: no rows.

        `known` are the ids whose counters stay. Returns why an id was refused: nothing of a refused one is installed.
        """
        wanted = {
            desired.frontend: service_id
            for service_id, target in targets.items()
            if target
            for desired in target.policy.frontends
        }
        unwanted = [frontend for service_id in targets for frontend in self._owned[service_id] - wanted.keys()]
        self._remove(unwanted)
        refused: dict[int, str] = {}
        placed: list[_Placed] = []
        for service_id, target in targets.items():
            if target is None:
                continue
            try:
                placed += self._place(target, placed)
                self._write_policy(service_id, target)
            except (MapFullError, OSError) as error:
                refused[service_id] = str(error)
        placed = self._without(placed, refused)
        self._remove(frontend for frontend, owner in wanted.items() if owner in refused and frontend in self.frontends)
        refused |= self._switch(placed)
        for service_id, target in targets.items():
            self._clean(service_id, None if service_id in refused else target, known)
        return refused

    def _place(self, write: PolicyWrite, pending: list[_Placed]) -> list[_Placed]:
        """New rows for the frontends of one policy that differ from what is installed, with slots for all of them."""
        changed = [desired for desired in write.policy.frontends if not self._is_installed(write, desired)]
        added = sum(desired.frontend not in self.frontends for desired in changed)
        size = self.maps["frontends"].max_entries
        if added and added + len(self.frontends) + sum(row.frontend not in self.frontends for row, _ in pending) > size:
            raise MapFullError("frontends", "datapath.max_frontends", size, added)
        placed: list[_Placed] = []
        for desired in changed:
            first = self._slots.take(len(desired.backends))
            if first is None:
                self._release(placed)
                needed = sum(len(each.backends) for each in changed)
                raise MapFullError("backends", "datapath.max_backends", self.maps["backends"].max_entries, needed)
            self._generation = max(self._generation + 1, time.monotonic_ns())
            row = write.row(desired.frontend, generation=self._generation, first=first, count=len(desired.backends))
            placed.append((row, desired.backends))
        return placed

    def _is_installed(self, write: PolicyWrite, desired: DesiredFrontend) -> bool:
        row = self.frontends.get(desired.frontend)
        return (
            row is not None
            and self.backends[desired.frontend] == desired.backends
            and row == write.row(desired.frontend, generation=row.generation, first=row.first, count=row.count)
        )

    def _without(self, placed: list[_Placed], refused: Container[int]) -> list[_Placed]:
        self._release([each for each in placed if each[0].service_id in refused])
        return [each for each in placed if each[0].service_id not in refused]

    def _release(self, placed: Iterable[_Placed]) -> None:
        for row, _ in placed:
            self._slots.release(row.first, row.count)

    def _write_policy(self, service_id: int, write: PolicyWrite) -> None:
        """What the policy's frontends need before they are there."""
        if service_id not in self._counted:
            self.maps.make_counters(service_id)
            self._counted.add(service_id)
        if write.policy.limit and service_id not in self._limited:
            self.maps.make_window(service_id)
            self._limited.add(service_id)
        row = PolicyRow(name=write.policy.key.name, limit=write.policy.limit)
        if self._policies.get(service_id) != row:
            self.maps["policies"].update(SERVICE_ID.pack(service_id), pack_policy(row))
            self._policies[service_id] = row
        for cgroup_id in write.cgroups - self._cgroups[service_id]:
            self.maps["backend_cgroups"].update(pack_backend_cgroup(cgroup_id, service_id), PRESENT)
            self._cgroups[service_id].add(cgroup_id)

    def _switch(self, placed: list[_Placed]) -> dict[int, str]:
        """Writes backends, filter and frontend rows; service ids that the kernel refused, taken out as a whole."""
        if not placed:
            return {}
        self.maps["backends"].update_many(
            [each for row, backends in placed for each in packed_backends(row.generation, row.first, backends)]
        )
        self._set_filter(
            {bit for row, _ in placed for bit in filter_bits(row.frontend)}
            | {bit for row, b in placed for e in b for bit in backend_bits(e, row.frontend.protocol)}
        )
        self.maps["members"].update_many([(pack_member(row.frontend, e), PRESENT) for row, b in placed for e in b])
        packed = [(pack_frontend(row.frontend), pack_frontend_row(row)) for row, _ in placed]
        refused: dict[int, str] = {}
        try:
            self.maps["frontends"].update_many(packed)
        except OSError:
            for (row, _), (key, value) in zip(placed, packed, strict=True):
                try:
                    self.maps["frontends"].update(key, value)
                except OSError as error:
                    refused[row.service_id] = str(error)
        for row, backends in placed:
            former = self.frontends.get(row.frontend)
            if former:
                self._backends_removed |= not set(self.backends[row.frontend]) <= set(backends)
                for e in set(self.backends[row.frontend]) - set(backends):
                    self.maps["members"].delete(pack_member(row.frontend, e))
                self._forget(former)
            self._note(row, backends)
        self._remove([row.frontend for row, _ in placed if row.service_id in refused])
        return refused

    def _remove(self, frontends: Iterable[Frontend]) -> None:
        rows = [self.frontends[frontend] for frontend in frontends]
        for row in rows:
            self.maps.remove_frontend(row.frontend)
            for e in self.backends[row.frontend]:
                self.maps["members"].delete(pack_member(row.frontend, e))
            self._forget(row)
            self._backends_removed = True
        self._clear_filter({bit for row in rows for bit in filter_bits(row.frontend) if not self._filter_users[bit]})

    def _note(self, row: FrontendRow, backends: tuple[Endpoint, ...]) -> None:
        self.frontends[row.frontend] = row
        self.backends[row.frontend] = backends
        self._owned[row.service_id].add(row.frontend)
        self._filter_users.update(filter_bits(row.frontend))
        self._generation = max(self._generation, row.generation)

    def _forget(self, row: FrontendRow) -> None:
        del self.frontends[row.frontend], self.backends[row.frontend]
        self._owned[row.service_id].discard(row.frontend)
        self._filter_users.subtract(filter_bits(row.frontend))
        self._slots.release(row.first, row.count)

    def _set_filter(self, bits: Iterable[int]) -> None:
        """Before the frontends that need them are there."""
        new = [bit for bit in bits if not self._filter[bit // 8] >> bit % 8 & 1]
        for bit in new:
            self._filter[bit // 8] |= 1 << bit % 8
        if new:
            self.maps.write_filter(self._filter)

    def _clear_filter(self, bits: Collection[int]) -> None:
        for bit in bits:
            self._filter[bit // 8] &= ~(1 << bit % 8)
        if bits:
            self.maps.write_filter(self._filter)

    def _clean(self, service_id: int, target: PolicyWrite | None, known: Container[int]) -> None:
        """Takes away what the policy's frontends needed and need no more."""
        key = SERVICE_ID.pack(service_id)
        for cgroup_id in self._cgroups[service_id] - (target.cgroups if target else frozenset()):
            self.maps["backend_cgroups"].delete(pack_backend_cgroup(cgroup_id, service_id))
            self._cgroups[service_id].discard(cgroup_id)
        if service_id in self._limited and not (target and target.policy.limit):
            self.maps["windows"].delete(key)
            self._limited.discard(service_id)
        if target:
            return
        if self._policies.pop(service_id, None):
            self.maps["policies"].delete(key)
        if service_id in self._counted and service_id not in known:
            self.maps["counters"].delete(key)
            self._counted.discard(service_id)
        for owned in (self._owned, self._cgroups):
            owned.pop(service_id, None)
