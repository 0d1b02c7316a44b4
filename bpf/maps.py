"""The pinned maps by name, with typed rows. MapWriter writes through this; inspect and metrics read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from bpf import rows
from bpf.build import MAP_NAMES
from bpf.libbpf import Map
from config.domain.addresses import Endpoint, Frontend

_ZERO = bytes(4)


class PinnedMaps:
    """The maps of one build, opened by path; each instance has descriptors of its own."""

    def __init__(self, directory: Path) -> None:
        self._maps = {name: Map(directory / name) for name in MAP_NAMES}

    def __getitem__(self, name: str) -> Map:
        return self._maps[name]

    def close(self) -> None:
        for opened in self._maps.values():
            opened.close()

    # frontends and backends

    def frontend_rows(self) -> Iterator[rows.FrontendRow]:
        for _, value in self["frontends"].items():
            yield rows.unpack_frontend_row(value)

    def backends_of(self, row: rows.FrontendRow) -> tuple[Endpoint, ...]:
        """Those in the row's slots; fewer than `count` when the row was replaced meanwhile."""
        found = (self["backends"].lookup(rows.INDEX.pack(i)) for i in range(row.first, row.first + row.count))
        pairs = [rows.unpack_backend(value) for value in found if value]
        return tuple(backend for generation, backend in pairs if generation == row.slots)

    def write_backends(self, generation: int, first: int, backends: Iterable[Endpoint]) -> None:
        self["backends"].update_many(packed_backends(generation, first, backends))

    def write_frontend(self, row: rows.FrontendRow) -> None:
        self["frontends"].update(rows.pack_frontend(row.frontend), rows.pack_frontend_row(row))

    def remove_frontend(self, frontend: Frontend) -> None:
        self["frontends"].delete(rows.pack_frontend(frontend))

    def members(self) -> set[tuple[Frontend, Endpoint]]:
        return {rows.unpack_member(key) for key, _ in self["members"].items()}

    def write_members(self, members: Iterable[tuple[Frontend, Endpoint]]) -> None:
        self["members"].update_many([(rows.pack_member(*each), rows.PRESENT) for each in members])

    def remove_member(self, frontend: Frontend, backend: Endpoint) -> None:
        self["members"].delete(rows.pack_member(frontend, backend))

    def write_filter(self, bits: bytearray) -> None:
        """All of them. Whoever reads meanwhile sees each bit as it was or as it is."""
        self["filter"].update(_ZERO, bytes(bits))

    # policies

    def policy_rows(self) -> dict[int, rows.PolicyRow]:
        """Of policies that are in force."""
        return {policy_id: row for policy_id, row in self.counted_policies().items() if row.in_force}

    def counted_policies(self) -> dict[int, rows.PolicyRow]:
        """Whose the counters are, in force or not."""
        return {_id(key): rows.unpack_policy(value) for key, value in self["policies"].items()}

    def counters(self) -> dict[int, rows.Counters]:
        return {_id(key): rows.unpack_counters(value) for key, value in self["counters"].items()}

    def windows(self) -> dict[int, rows.Window]:
        return {_id(key): rows.unpack_window(value) for key, value in self["windows"].items()}

    def affinity_rows(self) -> Iterator[rows.AffinityRow]:
        for key, value in self["affinity"].items():
            yield rows.unpack_affinity(key, value)

    def backend_cgroups(self) -> set[tuple[int, int]]:
        return {rows.unpack_backend_cgroup(key) for key, _ in self["backend_cgroups"].items()}

    def write_zeroes(self, name: str, policy_id: int) -> None:
        """In `counters` or `windows`: makes the row, or begins it again."""
        self[name].update(rows.POLICY_ID.pack(policy_id), bytes(self[name].value_size))

    # the agent and its lease

    def write_config(self, *, host_netns: int, lease_ns: int) -> None:
        self["config"].update(_ZERO, rows.pack_config(host_netns=host_netns, lease_ns=lease_ns))

    def renew_lease(self, now_ns: int) -> None:
        self["lease"].update(_ZERO, now_ns.to_bytes(8, "little"))

    def lease_renewed_ns(self) -> int:
        """CLOCK_MONOTONIC; 0 when it never was."""
        return int.from_bytes(self["lease"].lookup(_ZERO) or bytes(8), "little")


def packed_backends(generation: int, first: int, backends: Iterable[Endpoint]) -> list[tuple[bytes, bytes]]:
    return [(rows.INDEX.pack(first + i), rows.pack_backend(generation, backend)) for i, backend in enumerate(backends)]


def _id(key: bytes) -> int:
    return int.from_bytes(key, "little")
