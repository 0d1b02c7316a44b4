"""The programs as they are compiled for processors that may read and write words in another order, such as arm64.

They run on this machine's processor, which does not do that. So rows that are half of one write and half of another are
written here as such.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address

import pytest

from bpf import libbpf
from bpf.maps import hashes, packing
from bpf.maps.pinned_maps import PinnedMaps
from bpf.maps.rows import AffinityRow, FrontendRow
from config.domain.addresses import Endpoint, Frontend, Protocol
from tests.lab.affinity import pack_affinity
from tests.lab.lab import Lab, PodProcess
from tests.lab.rows import small_datapath, write_filter
from tests.lab.worker import CLOCK_MONOTONIC_COARSE

FRONTEND = Frontend(ip_address("10.200.0.251"), 53, Protocol.UDP)
FIRST, SECOND, OUT_OF_USE = (Endpoint(ip_address(f"10.78.0.{number}"), 5353) for number in (1, 2, 3))
PER_LINUX, PER_LINUX32 = 0, 8
"""Execution domains of personality(2)."""


@contextmanager
def another_machine() -> Iterator[None]:
    """Processes that start meanwhile see a machine type whose order of memory accesses we do not know."""
    personality = ctypes.CDLL(None).personality
    personality(PER_LINUX32)
    try:
        yield
    finally:
        personality(PER_LINUX)


@pytest.fixture(scope="module")
def maps(lab: Lab) -> Iterator[PinnedMaps]:
    """The maps of programs that are attached, without the hooks that would hide from a process where it was
    redirected."""
    with ExitStack() as stack:
        with another_machine():
            made = stack.enter_context(small_datapath(lab, "order", max_frontends=8, max_backends=8, max_affinity=8))
        made.attach_all()
        for family in "46":
            with libbpf.opened_pin(made.bpffs / "links" / f"getpeername{family}") as link:
                libbpf.link_detach(link)
        made.maps.write_config(host_netns=1, lease_ns=0)
        made.maps["agent_cgroup"].update(bytes(4), bytes(8))
        write_filter(made.maps, hashes.filter_bits(FRONTEND))
        yield made.maps


@pytest.fixture(scope="module")
def caller(lab: Lab, maps: PinnedMaps, pods: list[PodProcess]) -> PodProcess:
    del maps  # makes the cgroup
    return lab.process("caller", cgroup="order/caller", beside=pods[0])


def install(maps: PinnedMaps, backend: Endpoint, *, generation: int, affinity_seconds: int = 0) -> None:
    maps["backends"].update_many(packing.pack_backends(generation, 0, [backend]))
    maps["members"].update(packing.pack_member(FRONTEND, backend), packing.PRESENT)
    row = FrontendRow(
        generation=generation,
        frontend=FRONTEND,
        policy_id=7,
        first=0,
        count=1,
        backends_generation=generation,
        affinity_seconds=affinity_seconds,
    )
    maps.write_frontend(row)


def peer(caller: PodProcess) -> str:
    """Where a call to the frontend goes."""
    return str(caller.do("peer", address=str(FRONTEND.address), port=53, protocol="UDP")["peer"][0])


def mixed(former: bytes, present: bytes, word: int) -> bytes:
    """The present row, but for one word, which is still the former row's."""
    return present[: 8 * word] + former[8 * word : 8 * word + 8] + present[8 * word + 8 :]


def test_calls_go_to_the_backend_of_the_present_row(maps: PinnedMaps, caller: PodProcess) -> None:
    for generation, backend in ((1, FIRST), (2, SECOND)):
        install(maps, backend, generation=generation)
        assert peer(caller) == str(backend.address)


@pytest.mark.parametrize("name", ["frontends", "backends"])
def test_calls_pass_when_a_row_is_of_two_writes(maps: PinnedMaps, caller: PodProcess, name: str) -> None:
    """Its generations and its key are those of one write, so only its seal reveals the mixture."""
    install(maps, FIRST, generation=3, affinity_seconds=60)
    ((key, former),) = list(maps["frontends"].items()) if name == "frontends" else list(maps[name].items())[:1]
    install(maps, SECOND, generation=4)
    present = maps[name].lookup(key)
    assert present
    word = next(i for i in range(1, len(present) // 8 - 2) if mixed(former, present, i) != present)
    maps[name].update(key, mixed(former, present, word))
    assert peer(caller) == str(FRONTEND.address)
    maps[name].update(key, present)
    assert peer(caller) == str(SECOND.address)


def test_an_affinity_that_is_of_two_writes_is_no_proof_that_its_backend_is_in_use(
    maps: PinnedMaps, caller: PodProcess
) -> None:
    install(maps, FIRST, generation=5, affinity_seconds=60)

    def affinity_to(backend: Endpoint) -> tuple[bytes, bytes]:
        row = AffinityRow(
            client_netns=caller.do("cookie")["cookie"],
            frontend=FRONTEND,
            backend=backend,
            generation=5,
            last_used_ns=time.clock_gettime_ns(CLOCK_MONOTONIC_COARSE),
        )
        return pack_affinity(row)

    key, whole = affinity_to(OUT_OF_USE)
    maps["affinity"].update(key, whole)
    assert peer(caller) == str(OUT_OF_USE.address), "its generation says that it was in use a moment ago"
    _, other = affinity_to(FIRST)
    maps["affinity"].update(key, whole[:-8] + other[-8:])
    assert peer(caller) == str(FIRST.address)
