"""What a policy asks of the kernel maps, and which policies get it when a map is too small for all of them. Pure.

Who keeps or gets room, first come first served:
    1. policies in force that need no more than they have,
    2. policies in force that need more,
    3. those that wait or are new, in the order in which they are given (MapWriter puts who has waited longest first).
A policy that does not fit is refused as a whole and gives back what it has; smaller ones behind it may still fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from actors.messages.desired import DesiredFrontend, DesiredPolicy
from bpf.rows import FrontendFlag, FrontendRow, PolicyRow, uid_digest
from config.domain.addresses import Endpoint, Frontend


class Room(NamedTuple):
    """Numbers of rows. A policy's rows in `counters` and `windows` count as its one in `policies`: the three maps have
    one size, and no policy has more rows in them than there."""

    policies: int = 0
    frontends: int = 0
    backends: int = 0
    backend_cgroups: int = 0

    def plus(self, other: Room) -> Room:
        return Room(*(mine + its for mine, its in zip(self, other, strict=True)))

    def minus(self, other: Room) -> Room:
        return Room(*(mine - its for mine, its in zip(self, other, strict=True)))

    def exceeds(self, other: Room) -> bool:
        """In at least one map."""
        return any(mine > its for mine, its in zip(self, other, strict=True))


SIZE_KEYS = {
    "policies": "datapath.max_frontends",
    "frontends": "datapath.max_frontends",
    "backends": "datapath.max_backends",
    "backend_cgroups": "datapath.max_backends",
}
"""Map -> the configured size that it follows (bpf/programs/consts.h)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyWrite:
    """One policy's rows: what it asks for, with its Pods' cgroups found."""

    policy: DesiredPolicy
    cgroups: frozenset[int] = frozenset()
    levels: tuple[int, int] = (1, 0)
    """First and last cgroup level at which they may be met; none when the first is the greater."""

    @property
    def need(self) -> Room:
        frontends = self.policy.frontends
        backends = sum(len(each.backends) for each in frontends)
        return Room(1, len(frontends), backends, len(self.cgroups))

    @property
    def policy_row(self) -> PolicyRow:
        return policy_row(self.policy)

    def row(
        self, frontend: Frontend, *, generation: int, first: int, count: int, backends_generation: int
    ) -> FrontendRow:
        policy = self.policy
        return FrontendRow(
            generation=generation,
            frontend=frontend,
            flags=FrontendFlag(0) if policy.redirect_from_host else FrontendFlag.NO_HOST,
            policy_id=policy.policy_id,
            first=first,
            count=count,
            backends_generation=backends_generation,
            limit=policy.limit,
            affinity_seconds=policy.affinity_seconds,
            skip_from=self.levels[0],
            skip_to=self.levels[1],
        )


class Refusal(NamedTuple):
    """Why a policy is not in the maps."""

    message: str
    by_kernel: bool
    """It had its reasons (no memory): worth another try at any time. Else there is no room, until somebody leaves."""


class Change(NamedTuple):
    """A frontend whose row is to be written."""

    write: PolicyWrite
    desired: DesiredFrontend


def policy_row(policy: DesiredPolicy) -> PolicyRow:
    return PolicyRow(name=policy.key.name, limit=policy.limit, uid=uid_digest(policy.uid))


def admit(size: Room, used: Room, present: Mapping[int, Room], needs: Mapping[int, Room]) -> dict[int, str]:
    """The policy ids that do not get what they need -> why, for the operator.

    `used` is by all; `present` and `needs` are of the ids that are decided now: what they have, what they need.
    """
    left = size.minus(used)
    for room in present.values():
        left = left.plus(room)
    refused: dict[int, str] = {}
    for policy_id in sorted(needs, key=lambda each: _rank(present[each], needs[each])):
        need = needs[policy_id]
        if need.exceeds(left):
            refused[policy_id] = _why(size, left, need)
        else:
            left = left.minus(need)
    return refused


def _rank(present: Room, need: Room) -> int:
    if not need.exceeds(present):
        return 0
    return 1 if present.frontends else 2


def _why(size: Room, left: Room, need: Room) -> str:
    name = next(name for name in Room._fields if getattr(need, name) > getattr(left, name))
    number = getattr(need, name)
    return (
        f"the kernel map {name} ({getattr(size, name)} rows, set by {SIZE_KEYS[name]}) has no room for the "
        f"{'1 row' if number == 1 else f'{number} rows'} that the policy needs; the agent retries when rows become free"
    )


def part_that_stays(present: tuple[Endpoint, ...], wanted: tuple[Endpoint, ...]) -> tuple[int, int] | None:
    """Which part of a frontend's backends can go on without a new place in the map: index and number.

    All that are wanted, where they are there side by side; else one of those that are there and wanted; else None.
    """
    places = [i for i, backend in enumerate(present) if backend in wanted]
    if not places:
        return None
    first = places[0]
    return (first, len(wanted)) if present[first : first + len(wanted)] == wanted else (first, 1)
