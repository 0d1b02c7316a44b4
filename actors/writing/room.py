"""Which policies get room in the kernel maps when a map is too small for all of them. Pure.

Policies get room in this order:
    1. policies that have frontends in the kernel, and need no more room than they have,
    2. policies that have frontends in the kernel, and need more,
    3. policies that are waiting or new, in the order in which they are given. MapWriter puts those first that have
       waited longest.
A policy that does not fit is refused as a whole, and what it has becomes free. Smaller policies after it may still fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from bpf.build import SIZE_KEYS
from config.wording import count


class Room(NamedTuple):
    """Numbers of rows. `policies` stands for `counters` and `windows` as well: the three maps have the same size, and a
    policy has at most one row in each."""

    policies: int = 0
    frontends: int = 0
    backends: int = 0
    backend_cgroups: int = 0

    def plus(self, other: Room) -> Room:
        return Room(*(mine + its for mine, its in zip(self, other, strict=True)))

    def minus(self, other: Room) -> Room:
        return Room(*(mine - its for mine, its in zip(self, other, strict=True)))

    def exceeds(self, other: Room) -> bool:
        """Whether it is more than `other` in at least one map."""
        return any(mine > its for mine, its in zip(self, other, strict=True))


class Refusal(NamedTuple):
    """Why a policy has no rows in the maps."""

    message: str
    by_kernel: bool
    """True: the kernel refused a write, for instance without memory, and a retry may succeed at any time. False: there
    is no room until another policy leaves some."""


def admit(size: Room, used: Room, present: Mapping[int, Room], needs: Mapping[int, Room]) -> dict[int, str]:
    """Returns the policies that do not get what they need -> the reason, for the operator.

    `used` is the room that all policies use. `present` and `needs` are what each policy that is decided now has and
    needs.
    """
    free = size.minus(used)
    for room in present.values():
        free = free.plus(room)
    refused: dict[int, str] = {}
    for policy_id in sorted(needs, key=lambda each: _rank(present[each], needs[each])):
        need = needs[policy_id]
        if need.exceeds(free):
            refused[policy_id] = _no_room_message(size, free, need)
        else:
            free = free.minus(need)
    return refused


def _rank(present: Room, need: Room) -> int:
    if not need.exceeds(present):
        return 0
    return 1 if present.frontends else 2


def _no_room_message(size: Room, free: Room, need: Room) -> str:
    name = next(name for name in Room._fields if getattr(need, name) > getattr(free, name))
    return (
        f"the kernel map {name} ({getattr(size, name)} rows, set by {SIZE_KEYS[name]}) has no room for the "
        f"{count(getattr(need, name), 'row')} that the policy needs; the agent retries when rows become free"
    )
