"""The pinned maps of a build, by name and with typed rows. MapWriter writes through it; inspect, metrics and the closer
read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from bpf.build import MAP_NAMES
from bpf.maps import packing, rows
from bpf.maps.kernel_map import KernelMap
from config.domain.addresses import Address, Endpoint, Frontend


class PinnedMaps:
    """The maps of one build. Each instance opens descriptors of its own."""

    def __init__(self, directory: Path, names: Iterable[str] = MAP_NAMES) -> None:
        """Opens only the maps of these names; the methods that use others raise KeyError."""
        self._maps = {name: KernelMap(directory / name) for name in names}

    def __getitem__(self, name: str) -> KernelMap:
        return self._maps[name]

    def close(self) -> None:
        for opened in self._maps.values():
            opened.close()

    # frontends and backends

    def frontend_rows(self) -> Iterator[rows.FrontendRow]:
        for _, value in self["frontends"].items():
            yield packing.unpack_frontend_row(value)

    def frontend_row(self, frontend: Frontend) -> rows.FrontendRow | None:
        value = self["frontends"].lookup(packing.pack_frontend(frontend))
        return packing.unpack_frontend_row(value) if value else None

    def backends_of(self, row: rows.FrontendRow) -> tuple[Endpoint, ...]:
        """The backends that the row names; fewer than its `count` if the row was replaced after it was read."""
        found = (self["backends"].lookup(packing.INDEX.pack(i)) for i in range(row.first, row.first + row.count))
        pairs = [packing.unpack_backend(value) for value in found if value]
        return tuple(backend for generation, backend in pairs if generation == row.backends_generation)

    def write_frontend(self, row: rows.FrontendRow) -> None:
        self["frontends"].update(packing.pack_frontend(row.frontend), packing.pack_frontend_row(row))

    def remove_frontend(self, frontend: Frontend) -> None:
        self["frontends"].delete(packing.pack_frontend(frontend))

    def members(self) -> set[tuple[Frontend, Endpoint]]:
        return {packing.unpack_member(key) for key, _ in self["members"].items()}

    def is_member(self, frontend: Frontend, backend: Endpoint) -> bool:
        return self["members"].lookup(packing.pack_member(frontend, backend)) is not None

    def write_members(self, members: Iterable[tuple[Frontend, Endpoint]]) -> None:
        self["members"].update_many([(packing.pack_member(*each), packing.PRESENT) for each in members])

    def remove_member(self, frontend: Frontend, backend: Endpoint) -> None:
        self["members"].delete(packing.pack_member(frontend, backend))

    def write_filter(self, bits: bytearray) -> None:
        """Writes the whole row. A program that reads it meanwhile sees each bit as it was before or as it is after."""
        self["filter"].update(packing.ONLY_KEY, bytes(bits))

    def rows_in_use(self, name: str) -> int:
        """Number of rows in use. Every row of the array `backends` exists, so there only the rows that frontends name
        are counted."""
        if name == "backends":
            return sum(row.count for row in self.frontend_rows())
        return sum(1 for _ in self[name].items())

    # policies

    def policy_rows(self) -> dict[int, rows.PolicyRow]:
        """By policy id, of the policies that are in force."""
        return {policy_id: row for policy_id, row in self.counted_policies().items() if row.in_force}

    def policy(self, policy_id: int) -> rows.PolicyRow | None:
        value = self["policies"].lookup(packing.POLICY_ID.pack(policy_id))
        return packing.unpack_policy(value) if value else None

    def counted_policies(self) -> dict[int, rows.PolicyRow]:
        """By policy id, of all policies that have counters."""
        return {packing.unpack_number(key): packing.unpack_policy(value) for key, value in self["policies"].items()}

    def counters(self) -> dict[int, rows.Counters]:
        return {packing.unpack_number(key): packing.unpack_counters(value) for key, value in self["counters"].items()}

    def windows(self) -> dict[int, rows.Window]:
        return {packing.unpack_number(key): packing.unpack_window(value) for key, value in self["windows"].items()}

    def window(self, policy_id: int) -> rows.Window | None:
        value = self["windows"].lookup(packing.POLICY_ID.pack(policy_id))
        return packing.unpack_window(value) if value else None

    def affinity_row(self, frontend: Frontend, client_netns: int) -> rows.AffinityRow | None:
        key = packing.pack_affinity_key(frontend, client_netns)
        value = self["affinity"].lookup(key)
        return packing.unpack_affinity(key, value) if value else None

    def affinity_rows(self) -> Iterator[rows.AffinityRow]:
        for key, value in self["affinity"].items():
            yield packing.unpack_affinity(key, value)

    def decisions(self) -> list[rows.Decision]:
        """Those that the programs recorded last, in no order. Reads twice, and leaves out what changed in between."""
        first, second = (dict(self["decisions"].items()) for _ in range(2))
        recorded = [value for key, value in first.items() if second[key] == value and packing.is_recorded(value)]
        return [packing.unpack_decision(value) for value in recorded]

    def backend_cgroups(self) -> set[tuple[int, int]]:
        return {packing.unpack_backend_cgroup(key) for key, _ in self["backend_cgroups"].items()}

    def is_backend_cgroup(self, cgroup_id: int, policy_id: int) -> bool:
        return self["backend_cgroups"].lookup(packing.pack_backend_cgroup(cgroup_id, policy_id)) is not None

    def write_zeroes(self, name: str, policy_id: int) -> None:
        """Makes a row of `counters` or `windows`, or resets it to zero."""
        self[name].update(packing.POLICY_ID.pack(policy_id), bytes(self[name].value_size))

    # what the closer reads, and what it writes

    def backend_pods(self) -> set[Address]:
        return {packing.unpack_address(key) for key, _ in self["backend_pods"].items()}

    def unusable(self) -> set[tuple[Frontend, Endpoint]]:
        return {packing.unpack_member(key) for key, _ in self["unusable"].items()}

    def usage_revision(self) -> int:
        return packing.unpack_number(self["usage_revision"].lookup(packing.ONLY_KEY))

    def write_usage_revision(self, revision: int) -> None:
        self["usage_revision"].update(packing.ONLY_KEY, packing.pack_number(revision))

    def stale_closed(self) -> dict[Frontend, int]:
        """Sockets that were closed, by the frontend that their programs called."""
        return {
            packing.unpack_frontend(key): packing.unpack_number(value) for key, value in self["stale_closed"].items()
        }

    def closer(self) -> rows.CloserRow:
        return packing.unpack_closer(self["closer"].lookup(packing.ONLY_KEY) or bytes(self["closer"].value_size))

    # the agent and its lease

    def config(self) -> rows.ConfigRow:
        return packing.unpack_config(self["config"].lookup(packing.ONLY_KEY) or bytes(self["config"].value_size))

    def agent_cgroup(self) -> int:
        """0 when it is unknown."""
        return packing.unpack_number(self["agent_cgroup"].lookup(packing.ONLY_KEY))

    def write_config(self, *, host_netns: int, lease_ns: int) -> None:
        self["config"].update(packing.ONLY_KEY, packing.pack_config(host_netns=host_netns, lease_ns=lease_ns))

    def renew_lease(self, now_ns: int) -> None:
        self["lease"].update(packing.ONLY_KEY, packing.pack_number(now_ns))

    def lease_renewed_ns(self) -> int:
        """CLOCK_MONOTONIC; 0 when it was never renewed, or was ended."""
        return packing.unpack_number(self["lease"].lookup(packing.ONLY_KEY))
