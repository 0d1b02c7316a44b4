"""bpf/rows.py packs what bpf/types.h declares: read back by the field names that the compiler saw."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from bpf import rows
from bpf.build import KERNEL_TREE, MapSizes, compiler_flags, program_text

FRONTEND = rows.Frontend(ip_address("fd00::10"), 53, rows.L4.UDP)
WORDS = [int.from_bytes(FRONTEND.address.packed[i : i + 4], "little") for i in range(0, 16, 4)]
PORT = int.from_bytes((53).to_bytes(2, "big"), "little")
ROW = rows.FrontendRow(
    generation=2**40 + 1,
    frontend=FRONTEND,
    flags=rows.FrontendFlag.NO_HOST,
    service_id=11,
    first=12,
    count=13,
    limit=14,
    affinity_seconds=15,
    skip_from=2,
    skip_to=3,
)


@pytest.fixture(scope="module")
def compiled() -> Iterator[Any]:
    os.environ["BCC_KERNEL_SOURCE"] = str(KERNEL_TREE)
    from bcc import BPF  # noqa: PLC0415

    made = BPF(text=program_text().encode(), cflags=compiler_flags(MapSizes(16, 16, 16)))
    yield made
    made.cleanup()


def fields(kind: Any, raw: bytes) -> dict[str, object]:
    """Values of a packed row by the names of the C struct; padding is left out."""
    assert len(raw) == ctypes.sizeof(kind)
    row = kind.from_buffer_copy(raw)
    values = {name: getattr(row, name) for name, *_ in row._fields_ if "pad" not in name and name != "zero"}
    return {name: list(value) if hasattr(value, "_length_") else value for name, value in values.items()}


def test_a_frontend_row(compiled: Any) -> None:
    assert fields(compiled[b"frontends"].Leaf, rows.pack_frontend_row(ROW)) == {
        "generation": ROW.generation,
        "address": WORDS,
        "port": PORT,
        "protocol": 17,
        "flags": 1,
        "service_id": 11,
        "first": 12,
        "count": 13,
        "limit": 14,
        "affinity_seconds": 15,
        "skip_from": 2,
        "skip_to": 3,
        "generation_tail": ROW.generation,
    }


def test_a_frontend_key(compiled: Any) -> None:
    key = fields(compiled[b"frontends"].Key, rows.pack_frontend(FRONTEND))
    assert key == {"address": WORDS, "port": PORT, "protocol": 17}


def test_a_backend_row(compiled: Any) -> None:
    raw = rows.pack_backend(7, rows.Endpoint(FRONTEND.address, 53))
    row = compiled[b"backends"].Leaf.from_buffer_copy(raw)
    assert (row.generation, list(row.endpoint.address), row.endpoint.port) == (7, WORDS, PORT)


def test_an_affinity_row(compiled: Any) -> None:
    held = rows.AffinityRow(
        client_netns=9, frontend=FRONTEND, backend=rows.Endpoint(FRONTEND.address, 53), last_used_ns=2**40
    )
    raw_key, raw_value = rows.pack_affinity(held)
    key = compiled[b"affinity"].Key.from_buffer_copy(raw_key)
    value = compiled[b"affinity"].Leaf.from_buffer_copy(raw_value)
    assert (key.client_netns, list(key.frontend.address), key.frontend.port) == (9, WORDS, PORT)
    assert (list(value.backend.address), value.backend.port, value.last_used) == (WORDS, PORT, 2**40)


@pytest.mark.parametrize(
    ("name", "part", "raw", "expected"),
    [
        ("backend_cgroups", "Key", rows.pack_backend_cgroup(2**40, 5), {"cgroup_id": 2**40, "service_id": 5}),
        ("config", "Leaf", rows.pack_config(host_netns=3, lease_ns=4), {"host_netns": 3, "lease_ns": 4}),
        ("policies", "Leaf", rows.pack_policy(rows.PolicyRow(name="dns", limit=5)), {"name": b"dns", "limit": 5}),
    ],
)
def test_other_rows(compiled: Any, name: str, part: str, raw: bytes, expected: dict[str, object]) -> None:
    assert fields(getattr(compiled[name.encode()], part), raw) == expected
