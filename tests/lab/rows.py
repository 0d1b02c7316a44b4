"""Desired policies, and the real maps of a small build that is loaded but not attached."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from actors.messages.desired import DesiredFrontend, DesiredPolicy
from actors.writing.policy_write import PolicyWrite
from bpf.lifecycle.datapath import Datapath
from bpf.lifecycle.detaching import detach
from bpf.lifecycle.opened_maps import opened_maps
from bpf.lifecycle.startup import prepare
from bpf.maps.pinned_maps import PinnedMaps
from config.domain.addresses import Endpoint, Frontend, Protocol
from config.domain.ids import PolicyKey, PolicyKind
from config.settings import DatapathSettings
from tests.lab.lab import Lab


def prepare_small(lab: Lab, name: str, **sizes: Any) -> Datapath:
    """Loads a build with these map sizes, for a cgroup and a directory of pins that have this name."""
    cgroup = lab.cgroup / name
    cgroup.mkdir(exist_ok=True)
    return prepare(DatapathSettings(cgroup=str(cgroup), bpffs=pins_of(lab, name), **sizes))


@contextmanager
def installed_maps(lab: Lab) -> Iterator[PinnedMaps]:
    """The maps of the build that an agent of the laboratory has attached."""
    with opened_maps(lab.bpffs) as maps:
        assert maps
        yield maps


def pins_of(lab: Lab, name: str) -> Path:
    return lab.bpffs.with_name(f"{lab.prefix}-{name}")


@contextmanager
def small_datapath(lab: Lab, name: str, **sizes: Any) -> Iterator[Datapath]:
    """A build as `prepare_small` loads it, which is removed in the end."""
    try:
        made = prepare_small(lab, name, **sizes)
        yield made
        made.close()
    finally:
        detach(pins_of(lab, name))


def frontend(number: int) -> Frontend:
    return Frontend(ip_address("10.200.0.0") + number, 53, Protocol.UDP)


def backends(letters: str) -> tuple[Endpoint, ...]:
    """One backend for each letter, in alphabetical order."""
    return tuple(Endpoint(ip_address("10.78.0.0") + ord(letter), 53) for letter in sorted(letters))


def desired(policy_id: int, *letters: str, name: str = "", uid: str = "", **fields: Any) -> DesiredPolicy:
    """A policy in force that has a frontend for each of `letters`, which name the frontend's backends."""
    return DesiredPolicy(
        key=PolicyKey(PolicyKind.LOCAL_REDIRECT, name or f"policy{policy_id}"),
        uid=uid,
        policy_id=policy_id,
        in_force=True,
        frontends=tuple(
            DesiredFrontend(frontend=frontend(policy_id * 10 + i), backends=backends(each))
            for i, each in enumerate(letters)
        ),
        **fields,
    )


def out_of_force(policy: DesiredPolicy) -> DesiredPolicy:
    return replace(policy, in_force=False, frontends=(), excluded=())


def write(policy_id: int, *letters: str, cgroups: frozenset[int] = frozenset(), **fields: Any) -> PolicyWrite:
    return PolicyWrite(policy=desired(policy_id, *letters, **fields), cgroups=cgroups)


def write_filter(maps: PinnedMaps, places: Iterable[int]) -> None:
    """Sets these bits of the filter, and clears all others."""
    bits = bytearray(maps["filter"].value_size)
    for bit in places:
        bits[bit // 8] |= 1 << bit % 8
    maps.write_filter(bits)
