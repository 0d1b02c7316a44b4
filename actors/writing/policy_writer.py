"""The maps `policies`, `counters`, `windows` and `backend_cgroups`: what the rows of a policy's frontends need.

MapTables owns the instance. It calls `write` before the frontends' rows are written, and `remove_unneeded` after they
are removed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace

from actors.writing.policy_write import PolicyWrite
from bpf.maps.packing import POLICY_ID, PRESENT, pack_backend_cgroup, pack_policy
from bpf.maps.pinned_maps import PinnedMaps
from bpf.maps.rows import PolicyRow


class PolicyWriter:
    """Mirror of these maps, which are read once."""

    def __init__(self, maps: PinnedMaps) -> None:
        self._maps = maps
        self.rows = maps.counted_policies()
        """Policy id -> the row of `policies`: the policy that the counters with this id belong to."""
        self._limited = set(maps.windows())
        """Ids of the policies that have a row in `windows`."""
        self._cgroups: defaultdict[int, set[int]] = defaultdict(set)
        """Policy id -> ids of the cgroups whose calls the policy does not redirect."""
        self._cgroup_room = maps["backend_cgroups"].max_entries
        for cgroup_id, policy_id in maps.backend_cgroups():
            self._cgroups[policy_id].add(cgroup_id)
        self.used_cgroups = sum(map(len, self._cgroups.values()))
        """Number of rows in `backend_cgroups`."""
        for policy_id in maps.counters().keys() ^ self.rows.keys():  # an agent was killed between the two writes
            self._drop_counters(policy_id)

    @property
    def policy_ids(self) -> set[int]:
        """Policies that have a row in any of these maps."""
        return self._limited | set(self.rows) | set(self._cgroups)

    def cgroups_of(self, policy_id: int) -> AbstractSet[int]:
        return self._cgroups.get(policy_id, frozenset())

    def stays_counted(self, policy_id: int, known: Container[int]) -> bool:
        """Whether the policy keeps its counters even if it is out of force. `known`: ids whose counters stay."""
        return policy_id in self.rows and policy_id in known

    def make_room(self, wanted: Mapping[int, frozenset[int]]) -> None:
        """Call this before the policies are written. `wanted`: policy id -> the ids of its cgroups.

        If the new cgroups do not fit beside the old ones, the old ones that are no longer wanted go first.
        """
        fresh = sum(len(cgroups - self.cgroups_of(policy_id)) for policy_id, cgroups in wanted.items())
        if self.used_cgroups + fresh > self._cgroup_room:
            for policy_id, cgroups in wanted.items():
                self._drop_cgroups(policy_id, cgroups)

    def write(self, policy_id: int, write: PolicyWrite) -> None:
        """Writes what the policy's frontends need before they are written.

        Raises OSError if the kernel refuses a row.
        """
        row, former = write.policy_row, self.rows.get(policy_id)
        is_another = not row.is_same_policy(former)
        if is_another:
            self._maps.write_zeroes("counters", policy_id)
        if write.policy.limit and (is_another or policy_id not in self._limited):
            self._maps.write_zeroes("windows", policy_id)
            self._limited.add(policy_id)
        if row != former:
            self._write_row(policy_id, row)
        for cgroup_id in write.cgroups - self.cgroups_of(policy_id):
            self._maps["backend_cgroups"].update(pack_backend_cgroup(cgroup_id, policy_id), PRESENT)
            self._cgroups[policy_id].add(cgroup_id)
            self.used_cgroups += 1

    def remove_unneeded(self, policy_id: int, target: PolicyWrite | None, known: Container[int]) -> None:
        """Removes what the policy's frontends needed before, and do not need for `target`."""
        self._drop_cgroups(policy_id, target.cgroups if target else frozenset())
        if policy_id in self._limited and not (target and target.policy.limit):
            self._maps["windows"].delete(POLICY_ID.pack(policy_id))
            self._limited.discard(policy_id)
        if target:
            return
        row = self.rows.get(policy_id)
        if row and self.stays_counted(policy_id, known):
            if row.in_force:
                self._write_row(policy_id, replace(row, in_force=False))
        else:
            self._drop_counters(policy_id)

    def _write_row(self, policy_id: int, row: PolicyRow) -> None:
        self._maps["policies"].update(POLICY_ID.pack(policy_id), pack_policy(row))
        self.rows[policy_id] = row

    def _drop_counters(self, policy_id: int) -> None:
        """Removes both rows; either may be missing."""
        for name in ("counters", "policies"):
            self._maps[name].delete(POLICY_ID.pack(policy_id))
        self.rows.pop(policy_id, None)

    def _drop_cgroups(self, policy_id: int, wanted: frozenset[int]) -> None:
        held = self._cgroups.get(policy_id, set())
        for cgroup_id in held - wanted:
            self._maps["backend_cgroups"].delete(pack_backend_cgroup(cgroup_id, policy_id))
            held.discard(cgroup_id)
            self.used_cgroups -= 1
        if not held:
            self._cgroups.pop(policy_id, None)
