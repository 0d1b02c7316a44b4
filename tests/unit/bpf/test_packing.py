"""Packing a row and unpacking it again gives the same row."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from bpf.maps import hashes, packing, rows
from config.domain.addresses import Endpoint, Frontend, Protocol
from tests.lab.affinity import pack_affinity

V4 = Frontend(ip_address("10.96.0.10"), 53, Protocol.UDP)
V6 = Frontend(ip_address("fd00::10"), 443, Protocol.TCP)


@pytest.mark.parametrize("frontend", [V4, V6], ids=["IPv4", "IPv6"])
def test_a_frontend_row_survives_packing(frontend: Frontend) -> None:
    row = rows.FrontendRow(
        generation=2**63 + 1,
        frontend=frontend,
        flags=rows.FrontendFlag.NO_HOST | rows.FrontendFlag.SHADOW,
        policy_id=2**32 - 1,
        first=65535,
        backends_generation=1,
        count=3,
        limit=100,
        affinity_seconds=10800,
        skip_from=2,
        skip_to=5,
        percentage=1,
        cgroup_bits=2**63 + 1,
    )
    assert packing.unpack_frontend_row(packing.pack_frontend_row(row)) == row
    assert packing.unpack_frontend(packing.pack_frontend(frontend)) == frontend


@pytest.mark.parametrize("first", [1, 4096 * 7 + 1], ids=["the first namespaces", "those of another CPU"])
@pytest.mark.parametrize("percentage", [1, 10, 50, 100])
def test_p21_of_clients_in_a_row_about_that_percentage_is_redirected(first: int, percentage: int) -> None:
    clients = range(first, first + 200)
    found = sum(hashes.client_place(cookie) < percentage for cookie in clients)
    assert abs(found - 2 * percentage) <= 3


def test_ipv4_is_stored_as_mapped_ipv6_in_network_order() -> None:
    assert packing.pack_frontend(V4) == bytes(10) + b"\xff\xff" + bytes(
        [10, 96, 0, 10]
    ) + b"\x00\x35" + b"\x11" + bytes(5)


@pytest.mark.parametrize("frontend", [V4, V6], ids=["IPv4", "IPv6"])
def test_a_frontend_has_two_bits_of_the_filter(frontend: Frontend) -> None:
    port, mixed = hashes.filter_bits(frontend)
    assert port == frontend.port
    assert 65536 <= mixed < 2 * 65536
    assert mixed != hashes.filter_bits(frontend._replace(port=frontend.port + 1))[1]
    assert mixed != hashes.filter_bits(frontend._replace(address=frontend.address + 1))[1]


def test_a_backend_survives_packing() -> None:
    backend = Endpoint(ip_address("fd00::5"), 5353)
    assert packing.unpack_backend(packing.pack_backend(7, backend)) == (7, backend)


def test_an_affinity_row_survives_packing() -> None:
    row = rows.AffinityRow(
        generation=7, client_netns=9, frontend=V4, backend=Endpoint(ip_address("10.0.0.5"), 53), last_used_ns=4
    )
    assert packing.unpack_affinity(*pack_affinity(row)) == row


def test_counters_are_summed_over_the_cpus() -> None:
    one_cpu = b"".join(number.to_bytes(8, "little") for number in (5, 1, 10, 20, 30, 40, 50, 60, 70, 80))
    counters = packing.unpack_counters(one_cpu * 2)
    assert (counters.redirects, counters.affinity_hits) == (10, 2)
    assert counters.passes == dict(zip(rows.PassReason, (20, 40, 60, 80, 100, 120, 140, 160), strict=True))


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        (Endpoint(ip_address("10.0.0.5"), 53), "10.0.0.5:53"),
        (Endpoint(ip_address("fd00::5"), 53), "[fd00::5]:53"),
        (V4, "10.96.0.10:53/UDP"),
        (V6, "[fd00::10]:443/TCP"),
    ],
)
def test_endpoints_and_frontends_print_as_the_contract_says(endpoint: object, text: str) -> None:
    assert str(endpoint) == text
