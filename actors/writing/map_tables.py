"""Brings the kernel maps to the desired state, in an order in which no call meets a half-written one.

MapWriter owns the instance.

The order of writes keeps promise 2 and rule P10: everything that a frontend's row needs is written before the row, and
removed after it.
    counters, windows, policies, backend_cgroups -> backends, members, filter -> frontends
Removals go from right to left.
Which policies get room when not all of them fit is decided before the first write (`actors.writing.room`). The part of
the order that concerns frontends is in `actors.writing.frontend_writer`, and the part that concerns policies in
`actors.writing.policy_writer`.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from actors.writing.frontend_installer import FrontendInstaller
from actors.writing.frontend_writer import FrontendWriter
from actors.writing.policy_write import FrontendChange, PolicyWrite
from actors.writing.policy_writer import PolicyWriter
from actors.writing.room import Refusal, Room, admit
from bpf.maps.pinned_maps import PinnedMaps
from bpf.maps.rows import FrontendRow, PolicyRow
from config.domain.addresses import Endpoint, Frontend


class MapTables:
    """Reads the maps once, since no other process writes to them."""

    def __init__(self, maps: PinnedMaps) -> None:
        self.maps = maps
        self._frontends = FrontendWriter(maps)
        self._mirror = self._frontends.mirror
        self._installer = FrontendInstaller(self._frontends)
        self._policies = PolicyWriter(maps)
        self._size = Room(*(maps[name].max_entries for name in Room._fields))

    @property
    def policy_ids(self) -> set[int]:
        """Policies that have a row in any map."""
        return self._policies.policy_ids | set(self._mirror.policy_ids)

    @property
    def frontends(self) -> Mapping[Frontend, FrontendRow]:
        return self._mirror.rows

    @property
    def backends(self) -> Mapping[Frontend, tuple[Endpoint, ...]]:
        return self._mirror.backends

    @property
    def used(self) -> Room:
        return Room(
            len(self._policies.rows),
            len(self._mirror.rows),
            self._mirror.slots.used,
            self._policies.used_cgroups,
        )

    def counted_policy(self, policy_id: int) -> PolicyRow | None:
        """Returns the policy that the counters of this id belong to."""
        return self._policies.rows.get(policy_id)

    def goes_first(self, write: PolicyWrite) -> bool:
        """Whether the policy has frontends in the kernel, or wants one that another policy has there now."""
        wanted = (desired.frontend for desired in write.policy.frontends)
        return write.policy.policy_id in self._mirror.policy_ids or any(each in self.frontends for each in wanted)

    def take_backends_removed(self) -> bool:
        return self._frontends.take_backends_removed()

    def apply(self, targets: Mapping[int, PolicyWrite | None], known: Container[int]) -> dict[int, Refusal]:
        """Brings the rows of each policy to its target; a target of None means no rows.

        `known` are the ids whose counters stay even without a target. Among the policies that are not in force yet, the
        earlier ones in `targets` get room first. Returns the refused ids -> the reason; a refused policy has no rows.
        """
        refused = self._admit(targets, known)
        admitted = {policy_id: target for policy_id, target in targets.items() if target and policy_id not in refused}
        wanted = {desired.frontend for target in admitted.values() for desired in target.policy.frontends}
        for policy_id in targets:
            self._frontends.remove(self._mirror.owned_by(policy_id) - wanted)
        leaving = targets.keys() - admitted.keys()
        # A policy whose frontends another one takes over keeps its other rows until that is done.
        for policy_id in leaving - self._mirror.policy_ids:
            self._policies.remove_unneeded(policy_id, None, known)
        failed = self._write(admitted)
        for policy_id in failed:
            self._frontends.remove(self._mirror.owned_by(policy_id))
        for policy_id in leaving | admitted.keys() | failed.keys():
            self._policies.remove_unneeded(policy_id, None if policy_id in failed else admitted.get(policy_id), known)
        return refused | {policy_id: Refusal(why, by_kernel=True) for policy_id, why in failed.items()}

    def _admit(self, targets: Mapping[int, PolicyWrite | None], known: Container[int]) -> dict[int, Refusal]:
        present, needs = {}, {}
        for policy_id, target in targets.items():
            room, need = self._room_of(policy_id), target.need if target else Room()
            if self._policies.stays_counted(policy_id, known):  # its row in `policies` stays even when it is refused
                room, need = room._replace(policies=0), need._replace(policies=0)
            present[policy_id], needs[policy_id] = room, need
        full = admit(self._size, self.used, present, needs)
        return {policy_id: Refusal(why, by_kernel=False) for policy_id, why in full.items()}

    def _room_of(self, policy_id: int) -> Room:
        frontends = self._mirror.owned_by(policy_id)
        return Room(
            policies=int(policy_id in self._policies.rows),
            frontends=len(frontends),
            backends=sum(self._mirror.rows[frontend].count for frontend in frontends),
            backend_cgroups=len(self._policies.cgroups_of(policy_id)),
        )

    def _write(self, admitted: Mapping[int, PolicyWrite]) -> dict[int, str]:
        """Returns the policies that the kernel refused a row of -> the reason."""
        self._policies.make_room({policy_id: target.cgroups for policy_id, target in admitted.items()})
        failed: dict[int, str] = {}
        changes: list[FrontendChange] = []
        for policy_id, target in admitted.items():
            try:
                self._policies.write(policy_id, target)
            except OSError as error:
                failed[policy_id] = str(error)
            else:
                changes += (FrontendChange(target, desired) for desired in target.policy.frontends)
        return failed | self._installer.install(changes)
