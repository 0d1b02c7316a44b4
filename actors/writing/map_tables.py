"""A mirror of the kernel maps, and the writes that bring them to the desired state. MapWriter owns the instance.

The order of writes keeps promise 2 and rule P10: everything that a frontend's row needs is written before the row, and
removed after it.
    counters, windows, policies, backend_cgroups -> backends, members, filter -> frontends
Removals go from right to left.
Which policies get room when not all of them fit is decided before the first write (`actors.writing.room`). The part of
the order that concerns frontends is in `actors.writing.frontend_writer`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Mapping
from dataclasses import replace

from actors.writing.frontend_installer import FrontendInstaller
from actors.writing.frontend_writer import FrontendWriter
from actors.writing.policy_write import FrontendChange, PolicyWrite
from actors.writing.room import Refusal, Room, admit
from bpf.maps.packing import POLICY_ID, PRESENT, pack_backend_cgroup, pack_policy
from bpf.maps.pinned_maps import PinnedMaps
from bpf.maps.rows import FrontendRow, PolicyRow
from config.domain.addresses import Endpoint, Frontend


class MapTables:
    """Reads the maps once, since no other process writes to them."""

    def __init__(self, maps: PinnedMaps) -> None:
        self.maps = maps
        self._writer = FrontendWriter(maps)
        self._mirror = self._writer.mirror
        self._installer = FrontendInstaller(self._writer)
        self._policies = maps.counted_policies()
        """Policy id -> the row of `policies`: the policy that the counters with this id belong to."""
        self._limited = set(maps.windows())
        """Ids of the policies that have a row in `windows`."""
        self._cgroups: defaultdict[int, set[int]] = defaultdict(set)
        """Policy id -> ids of the cgroups whose calls the policy does not redirect."""
        self._size = Room(*(maps[name].max_entries for name in Room._fields))
        for cgroup_id, policy_id in maps.backend_cgroups():
            self._cgroups[policy_id].add(cgroup_id)
        self._used_cgroups = sum(map(len, self._cgroups.values()))
        for policy_id in maps.counters().keys() ^ self._policies.keys():  # an agent was killed between the two writes
            self._drop_counters(policy_id)

    @property
    def policy_ids(self) -> set[int]:
        """Policies that have a row in any map."""
        return self._limited | set(self._policies) | set(self._mirror.policy_ids) | set(self._cgroups)

    @property
    def frontends(self) -> Mapping[Frontend, FrontendRow]:
        return self._mirror.rows

    @property
    def backends(self) -> Mapping[Frontend, tuple[Endpoint, ...]]:
        return self._mirror.backends

    @property
    def used(self) -> Room:
        return Room(len(self._policies), len(self._mirror.rows), self._mirror.slots.used, self._used_cgroups)

    def counted_policy(self, policy_id: int) -> PolicyRow | None:
        """Returns the policy that the counters of this id belong to."""
        return self._policies.get(policy_id)

    def has_frontends(self, write: PolicyWrite) -> bool:
        """Whether the policy has frontends in the kernel, or wants one that another policy has there now."""
        wanted = (desired.frontend for desired in write.policy.frontends)
        return write.policy.policy_id in self._mirror.policy_ids or any(each in self.frontends for each in wanted)

    def take_backends_removed(self) -> bool:
        return self._writer.take_backends_removed()

    def apply(self, targets: Mapping[int, PolicyWrite | None], known: Container[int]) -> dict[int, Refusal]:
        """Brings the rows of each policy to its target; a target of None means no rows.

        `known` are the ids whose counters stay even without a target. Among the policies that are not in force yet, the
        earlier ones in `targets` get room first. Returns the refused ids -> the reason; a refused policy has no rows.
        """
        refused = self._admit(targets, known)
        admitted = {policy_id: target for policy_id, target in targets.items() if target and policy_id not in refused}
        wanted = {desired.frontend for target in admitted.values() for desired in target.policy.frontends}
        for policy_id in targets:
            self._writer.remove(self._mirror.owned_by(policy_id) - wanted)
        leaving = targets.keys() - admitted.keys()
        # A policy whose frontends another one takes over keeps its other rows until that is done.
        for policy_id in leaving - self._mirror.policy_ids:
            self._remove_unneeded(policy_id, None, known)
        failed = self._write(admitted)
        for policy_id in failed:
            self._writer.remove(self._mirror.owned_by(policy_id))
        for policy_id in leaving | admitted.keys() | failed.keys():
            self._remove_unneeded(policy_id, None if policy_id in failed else admitted.get(policy_id), known)
        return refused | {policy_id: Refusal(why, by_kernel=True) for policy_id, why in failed.items()}

    def _admit(self, targets: Mapping[int, PolicyWrite | None], known: Container[int]) -> dict[int, Refusal]:
        present, needs = {}, {}
        for policy_id, target in targets.items():
            room, need = self._room_of(policy_id), target.need if target else Room()
            if self._stays_counted(policy_id, known):  # its row in `policies` stays even when it is refused
                room, need = room._replace(policies=0), need._replace(policies=0)
            present[policy_id], needs[policy_id] = room, need
        full = admit(self._size, self.used, present, needs)
        return {policy_id: Refusal(why, by_kernel=False) for policy_id, why in full.items()}

    def _room_of(self, policy_id: int) -> Room:
        frontends = self._mirror.owned_by(policy_id)
        return Room(
            policies=int(policy_id in self._policies),
            frontends=len(frontends),
            backends=sum(self._mirror.rows[frontend].count for frontend in frontends),
            backend_cgroups=len(self._cgroups.get(policy_id, ())),
        )

    def _stays_counted(self, policy_id: int, known: Container[int]) -> bool:
        return policy_id in self._policies and policy_id in known

    def _write(self, admitted: Mapping[int, PolicyWrite]) -> dict[int, str]:
        """Returns the policies that the kernel refused a row of -> the reason."""
        fresh = sum(len(target.cgroups - self._cgroups.get(each, set())) for each, target in admitted.items())
        if self._used_cgroups + fresh > self._size.backend_cgroups:  # remove old ones first
            for policy_id, target in admitted.items():
                self._drop_cgroups(policy_id, target.cgroups)
        failed: dict[int, str] = {}
        changes: list[FrontendChange] = []
        for policy_id, target in admitted.items():
            try:
                self._write_policy(policy_id, target)
            except OSError as error:
                failed[policy_id] = str(error)
            else:
                changes += (FrontendChange(target, desired) for desired in target.policy.frontends)
        return failed | self._installer.install(changes)

    def _write_policy(self, policy_id: int, write: PolicyWrite) -> None:
        """Writes what the policy's frontends need before they are written."""
        row, former = write.policy_row, self._policies.get(policy_id)
        is_another = not row.is_same_policy(former)
        if is_another:
            self.maps.write_zeroes("counters", policy_id)
        if write.policy.limit and (is_another or policy_id not in self._limited):
            self.maps.write_zeroes("windows", policy_id)
            self._limited.add(policy_id)
        if row != former:
            self._write_policy_row(policy_id, row)
        for cgroup_id in write.cgroups - self._cgroups.get(policy_id, set()):
            self.maps["backend_cgroups"].update(pack_backend_cgroup(cgroup_id, policy_id), PRESENT)
            self._cgroups[policy_id].add(cgroup_id)
            self._used_cgroups += 1

    def _write_policy_row(self, policy_id: int, row: PolicyRow) -> None:
        self.maps["policies"].update(POLICY_ID.pack(policy_id), pack_policy(row))
        self._policies[policy_id] = row

    def _remove_unneeded(self, policy_id: int, target: PolicyWrite | None, known: Container[int]) -> None:
        """Removes what the policy's frontends needed before, and do not need for `target`."""
        self._drop_cgroups(policy_id, target.cgroups if target else frozenset())
        if policy_id in self._limited and not (target and target.policy.limit):
            self.maps["windows"].delete(POLICY_ID.pack(policy_id))
            self._limited.discard(policy_id)
        if target:
            return
        row = self._policies.get(policy_id)
        if row and self._stays_counted(policy_id, known):
            if row.in_force:
                self._write_policy_row(policy_id, replace(row, in_force=False))
        else:
            self._drop_counters(policy_id)

    def _drop_counters(self, policy_id: int) -> None:
        """Removes both rows; either may be missing."""
        for name in ("counters", "policies"):
            self.maps[name].delete(POLICY_ID.pack(policy_id))
        self._policies.pop(policy_id, None)

    def _drop_cgroups(self, policy_id: int, wanted: frozenset[int]) -> None:
        held = self._cgroups.get(policy_id, set())
        for cgroup_id in held - wanted:
            self.maps["backend_cgroups"].delete(pack_backend_cgroup(cgroup_id, policy_id))
            held.discard(cgroup_id)
            self._used_cgroups -= 1
        if not held:
            self._cgroups.pop(policy_id, None)
