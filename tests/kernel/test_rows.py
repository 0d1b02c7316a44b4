"""What bpf/maps/packing.py packs is what the compiled programs read: field by field, by the BTF of the loaded maps."""

from __future__ import annotations

import json
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest

from bpf.build import MAP_NAMES, ONE_ROW_MAPS
from bpf.cgroups import pod_cgroups
from bpf.maps import hashes, packing, rows
from bpf.maps.kernel_map import KernelMap
from bpf.maps.pinned_maps import PinnedMaps
from bpf.monitoring import shared_rows
from config.domain.addresses import Endpoint, Frontend, Protocol
from tests.lab.affinity import pack_affinity
from tests.lab.lab import Lab
from tests.lab.processes import ROOT
from tests.lab.rows import small_datapath

V4 = Frontend(IPv4Address("10.96.0.10"), 53, Protocol.UDP)
V6 = Frontend(IPv6Address("fd00::10"), 8053, Protocol.TCP)
BACKEND = Endpoint(IPv6Address("fd00::5"), 5353)
ONE = packing.POLICY_ID.pack(1)


@pytest.fixture(scope="module")
def maps(lab: Lab) -> Iterator[PinnedMaps]:
    """The maps of a build that is loaded, but not attached."""
    with small_datapath(lab, "rows", max_frontends=8, max_backends=8, max_affinity=8) as made:
        yield made.maps
        made.maps.close()


def as_the_kernel_sees(path: Path) -> dict[str, Any]:
    """The map's first row with the field names of its BTF: {"key": ..., "value": ...}."""
    command = ["bpftool", "-j", "map", "dump", "pinned", str(path)]
    first, *_ = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return dict(first["formatted"])


def words(address: IPv4Address | IPv6Address) -> list[int]:
    """The address as two words in network order, as this machine reads them."""
    raw = packing.pack_address(address)
    return [int.from_bytes(raw[i : i + 8], sys.byteorder) for i in (0, 8)]


def key_of(frontend: Frontend) -> dict[str, Any]:
    return {
        "address": words(frontend.address),
        "port_protocol": socket.htons(frontend.port) | frontend.protocol.number << 16,
    }


def seal_of(rows_of: KernelMap) -> int:
    """The seal of the words that precede it in the map's first row."""
    _, value = next(iter(rows_of.items()))
    return int.from_bytes(packing.seal(value[:-8]), sys.byteorder)


@pytest.mark.parametrize("frontend", [V4, V6], ids=["IPv4", "IPv6"])
def test_the_programs_read_a_frontend_and_its_row_as_packed(maps: PinnedMaps, frontend: Frontend) -> None:
    maps.write_frontend(
        rows.FrontendRow(
            generation=2**40 + 1,
            frontend=frontend,
            flags=rows.FrontendFlag.NO_HOST | rows.FrontendFlag.SHADOW,
            policy_id=10091,
            first=3,
            count=2,
            backends_generation=2**40,
            limit=100,
            affinity_seconds=10800,
            skip_from=4,
            skip_to=6,
            percentage=42,
            cgroup_bits=2**63 + 5,
        )
    )
    row = as_the_kernel_sees(maps["frontends"].path)
    assert row["key"] == key_of(frontend)
    assert row["value"] == {
        "key": key_of(frontend),
        "generation": 2**40 + 1,
        "generation_tail": 2**40 + 1,
        "flags": 3,
        "policy_id": 10091,
        "first": 3,
        "count": 2,
        "backends_generation": 2**40,
        "limit": 100,
        "affinity_seconds": 10800,
        "skip_from": 4,
        "skip_to": 6,
        "percentage": 42,
        "cgroup_bits": 2**63 + 5,
        "seal": seal_of(maps["frontends"]),
    }
    maps.remove_frontend(frontend)


def test_the_programs_read_a_backend_as_packed(maps: PinnedMaps) -> None:
    maps["backends"].update_many(packing.pack_backends(7, 0, [BACKEND]))
    row = as_the_kernel_sees(maps["backends"].path)
    endpoint = {"address": words(BACKEND.address), "port": socket.htons(BACKEND.port)}
    assert row == {"key": 0, "value": {"generation": 7, "endpoint": endpoint, "seal": seal_of(maps["backends"])}}


@pytest.mark.parametrize("frontend", [V4, V6], ids=["IPv4", "IPv6"])
def test_the_programs_read_the_bits_of_a_frontend_as_packed(maps: PinnedMaps, frontend: Frontend) -> None:
    filter_row = bytearray(maps["filter"].row_size)
    for bit in hashes.filter_bits(frontend):
        filter_row[bit // 8] |= 1 << bit % 8
    maps.write_filter(filter_row)
    row = as_the_kernel_sees(maps["filter"].path)["value"]
    port, mixed = hashes.filter_bits(frontend)
    assert port == frontend.port
    assert {i: word for i, word in enumerate(row["ports"]) if word} == {port // 64: 1 << port % 64}
    place = mixed - 65536
    assert {i: word for i, word in enumerate(row["frontends"]) if word} == {place // 64: 1 << place % 64}


def test_the_programs_read_an_affinity_as_packed(maps: PinnedMaps) -> None:
    held = rows.AffinityRow(client_netns=2**33, frontend=V4, backend=BACKEND, generation=7, last_used_ns=2**50)
    maps["affinity"].update(*pack_affinity(held))
    row = as_the_kernel_sees(maps["affinity"].path)
    endpoint = {"address": words(BACKEND.address), "port": socket.htons(BACKEND.port)}
    assert row["key"] == {"client_netns": 2**33, "frontend": key_of(V4)}
    sealed = packing.seal(pack_affinity(held)[1][:32])
    assert row["value"] == {
        "generation": 7,
        "backend": endpoint,
        "last_used": 2**50,
        "generation_tail": 7,
        "seal": int.from_bytes(sealed, sys.byteorder),
    }


def test_the_programs_read_a_member_as_packed(maps: PinnedMaps) -> None:
    maps["members"].update(packing.pack_member(V6, BACKEND), packing.PRESENT)
    endpoint = {"address": words(BACKEND.address), "port": socket.htons(BACKEND.port)}
    assert as_the_kernel_sees(maps["members"].path)["key"] == {"frontend": key_of(V6), "backend": endpoint}
    assert maps.members() == {(V6, BACKEND)}


def test_programs_agent_and_closer_read_the_closers_rows_alike(maps: PinnedMaps) -> None:
    maps["backend_pods"].update(packing.pack_address(BACKEND.address), packing.PRESENT)
    assert as_the_kernel_sees(maps["backend_pods"].path)["key"] == {"address": words(BACKEND.address)}
    assert maps.backend_pods() == {BACKEND.address}
    maps["unusable"].update(packing.pack_member(V6, BACKEND), packing.PRESENT)
    endpoint = {"address": words(BACKEND.address), "port": socket.htons(BACKEND.port)}
    assert as_the_kernel_sees(maps["unusable"].path)["key"] == {"frontend": key_of(V6), "backend": endpoint}
    assert maps.unusable() == {(V6, BACKEND)}
    maps["stale_closed"].update(packing.pack_frontend(V4), (2**40).to_bytes(8, sys.byteorder))
    assert as_the_kernel_sees(maps["stale_closed"].path) == {"key": key_of(V4), "value": 2**40}
    assert maps.stale_closed() == {V4: 2**40}
    row = rows.CloserRow(alive_ns=2**50, fault=rows.CloserFault.NO_NAMESPACES)
    maps["closer"].update(bytes(4), packing.pack_closer(row))
    assert as_the_kernel_sees(maps["closer"].path)["value"] == {"alive_at": 2**50, "fault": 3}
    assert maps.closer() == row


def test_counters_are_read_as_the_programs_lay_them_out(maps: PinnedMaps) -> None:
    counters = maps["counters"]
    numbers = b"".join(i.to_bytes(8, sys.byteorder) for i in range(1, counters.row_size // 8 + 1))
    counters.update(ONE, numbers * counters.cpus)
    command = ["bpftool", "-j", "map", "dump", "pinned", str(counters.path)]
    (dumped,) = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    of_a_cpu = dumped["formatted"]["values"][0]["value"]
    read = maps.counters()[1]
    assert read.redirects == of_a_cpu["redirects"] * counters.cpus
    assert read.affinity_hits == of_a_cpu["affinity_hits"] * counters.cpus
    assert [read.passes[reason] for reason in rows.PassReason] == [n * counters.cpus for n in of_a_cpu["passes"]]


def test_a_decision_is_read_as_the_programs_lay_it_out(maps: PinnedMaps) -> None:
    """Only the programs write decisions, so there is no function that packs one."""
    target = packing.pack_member(V4, BACKEND)[24:]
    numbers = (2**33, 2**34, 7 << 32 | 9, 10091, rows.PassReason.QOS + 1, 3)
    raw = struct.pack("=QQ24s24sQQQIHH", 5, 2**40, packing.pack_frontend(V4), target, *numbers)
    maps["decisions"].update(bytes(4), raw)
    assert as_the_kernel_sees(maps["decisions"].path)["value"] == {
        "number": 5,
        "decided_at": 2**40,
        "frontend": key_of(V4),
        "target": {"address": words(BACKEND.address), "port": socket.htons(BACKEND.port)},
        "client_netns": 2**33,
        "cgroup_id": 2**34,
        "thread_and_process": 7 << 32 | 9,
        "policy_id": 10091,
        "reason": 4,
        "hook": 3,
    }
    assert packing.unpack_decision(raw) == rows.Decision(
        time_ns=2**40,
        hook="sendmsg6",
        frontend=V4,
        target=BACKEND,
        reason=rows.PassReason.QOS,
        policy_id=10091,
        client_netns=2**33,
        cgroup_id=2**34,
        pid=7,
    )


def test_the_programs_read_policies_windows_cgroups_and_configuration_as_packed(maps: PinnedMaps) -> None:
    maps["policies"].update(ONE, packing.pack_policy(rows.PolicyRow(name="n" * 253, limit=9)))
    row = as_the_kernel_sees(maps["policies"].path)
    assert row["value"]["limit"] == 9
    maps["windows"].update(ONE, (12 << 32 | 34).to_bytes(8, sys.byteorder))
    assert maps.windows()[1] == rows.Window(second=12, calls=34)
    maps["backend_cgroups"].update(packing.pack_backend_cgroup(2**35, 5), packing.PRESENT)
    row = as_the_kernel_sees(maps["backend_cgroups"].path)
    assert row["key"] == {"cgroup_id": 2**35, "policy_id": 5}
    maps.write_config(host_netns=2**36, lease_ns=30)
    assert as_the_kernel_sees(maps["config"].path)["value"] == {"host_netns": 2**36, "lease_ns": 30}


def test_every_map_is_pinned_with_the_configured_size(maps: PinnedMaps) -> None:
    sizes = {name: maps[name].max_entries for name in MAP_NAMES}
    assert {name: sizes[name] for name in ("frontends", "backends", "affinity")} == {
        "frontends": 8,
        "backends": 8,
        "affinity": 8,
    }
    assert {name: sizes[name] for name in ONE_ROW_MAPS} == dict.fromkeys(ONE_ROW_MAPS, 1)


def test_numbers_that_stand_in_both_languages_are_the_same() -> None:
    types, consts = (ROOT / "bpf" / "programs" / name for name in ("types.h", "consts.h"))
    found = re.search(r"enum pass_reason \{(.*?)\};", types.read_text(), re.DOTALL)
    assert found
    names = re.findall(r"PASS_\w+", found[1])
    assert names == [*(f"PASS_{reason.name}" for reason in rows.PassReason), "PASS_REASONS"]
    assert f"#define MAX_CGROUP_LEVELS {pod_cgroups.MAX_LEVELS}\n" in consts.read_text()
    assert f"#define HASH_FACTOR {packing.HASH_FACTOR:#x}ULL\n" in consts.read_text()
    hooks = re.search(r"enum calling_hook \{(.*?)\};", types.read_text(), re.DOTALL)
    assert hooks
    assert hooks[1].lower().replace(",", "").split() == list(rows.DECIDING_HOOKS)
    assert f"#define MAX_DECISIONS {shared_rows.MAX_DECISIONS}\n" in consts.read_text()
    for flag in rows.FrontendFlag:
        assert f"#define FRONTEND_{flag.name} {flag.value} " in types.read_text()
