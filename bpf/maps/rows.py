"""The rows of the kernel maps, as Python values. `bpf.maps.packing` turns them into bytes and back.

Mirrors bpf/programs/types.h.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

from config.domain.addresses import Endpoint, Frontend

_NANOSECONDS = 1_000_000_000


class PassReason(IntEnum):
    """Why a call that matched a frontend was left alone. The number is the index into the row of counters."""

    LEASE = 0
    FROM_HOST = 1
    FROM_BACKEND = 2
    QOS = 3
    BOUND = 4
    """The socket is bound to a device, whose network may not reach the Pods."""
    NO_MEMORY = 5
    """There was no memory to record the way back."""
    SHADOW = 6
    """The policy is in mode Shadow, and would have redirected the call (P21)."""
    PERCENTAGE = 7
    """The client is not among those that the policy redirects (P21)."""

    @property
    def label(self) -> str:
        """As metrics and JSON output name it."""
        return self.name.lower()


DECIDING_HOOKS = ("connect4", "connect6", "sendmsg4", "sendmsg6")
"""In the order of `enum calling_hook` in bpf/programs/types.h."""


class CloserFault(IntEnum):
    """What keeps the closer from closing stale sockets (in words: `bpf.maps.closer_faults`)."""

    NONE = 0
    NO_RIGHT = 1
    NOT_SUPPORTED = 2
    NO_NAMESPACES = 3
    """It finds no network namespace but the node's own."""
    FAILED = 4
    """Its log says more."""

    @classmethod
    def _missing_(cls, value: object) -> CloserFault:
        """A closer of a later version wrote this number."""
        del value
        return cls.FAILED


class FrontendFlag(IntFlag):
    NO_HOST = 1
    """Calls from the agent's own network namespace pass (P14)."""
    SHADOW = 2
    """Every call passes; those that would be redirected are counted (P21)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontendRow:
    """One row of `frontends`."""

    generation: int
    """Every write of any frontend row has a new, higher one."""
    frontend: Frontend
    flags: FrontendFlag = FrontendFlag(0)
    policy_id: int
    first: int
    """Index in `backends` of the first backend. The others follow it, sorted by endpoint."""
    count: int
    """Number of backends."""
    backends_generation: int
    """Generation of its rows in `backends`: the row's own, or an earlier one's if it has left them in place."""
    limit: int = 0
    """Redirects per second of the whole policy; 0: no limit."""
    affinity_seconds: int = 0
    """0: no affinity."""
    skip_from: int = 1
    skip_to: int = 0
    """Cgroup levels at which the policy's Pods may be, whose processes it skips; none when skip_from > skip_to."""
    percentage: int = 100
    """How many of a hundred clients are redirected (P21), 1 to 100."""
    cgroup_bits: int = 0
    """`bpf.maps.hashes.cgroup_bits` of the cgroups whose processes it skips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """A policy's counters, summed over all CPUs."""

    redirects: int = 0
    passes: dict[PassReason, int] = field(default_factory=lambda: dict.fromkeys(PassReason, 0))
    affinity_hits: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AffinityRow:
    client_netns: int
    """Network namespace cookie."""
    frontend: Frontend
    backend: Endpoint
    generation: int
    """Generation of the frontend row by which the backend was last known to be in use."""
    last_used_ns: int
    """CLOCK_MONOTONIC."""

    def is_fresh(self, affinity_seconds: int, now_ns: int) -> bool:
        """Whether a call at `now_ns` (CLOCK_MONOTONIC) comes within the frontend's timeout of `affinity_seconds`.

        Mirrors is_fresh of bpf/programs/lib_affinity.c.
        """
        return now_ns - self.last_used_ns <= affinity_seconds * _NANOSECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The second in which a policy's last call was counted."""

    second: int
    """CLOCK_MONOTONIC in whole seconds, modulo 2^32."""
    calls: int
    """Calls in that second, including those over the limit."""

    def calls_in(self, second: int) -> int:
        """Calls in that second (CLOCK_MONOTONIC); 0 if the last call was in another one."""
        return self.calls if self.second == second & 0xFFFFFFFF else 0

    def calls_seen_at(self, second: int) -> int:
        """How many calls a program whose clock is in that second finds counted. If its clock is behind that of another
        CPU, it counts in the newer second (bpf/programs/lib_limit.c)."""
        return self.calls if self.second >= second & 0xFFFFFFFF else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRow:
    name: str
    limit: int
    uid: int = 0
    """`uid_digest` of the object's uid."""
    in_force: bool = True
    """False: the policy has no rows but its counters and this one."""

    def is_same_policy(self, other: PolicyRow | None) -> bool:
        """Whether both rows are of one object. A new object with an old name has another uid."""
        return other is not None and (self.name, self.uid) == (other.name, other.uid)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigRow:
    host_netns: int
    """Cookie of the agent's network namespace."""
    lease_ns: int
    """0: no lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloserRow:
    alive_ns: int
    """CLOCK_MONOTONIC; 0 when no closer has run yet."""
    fault: CloserFault


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the programs decided about one call."""

    time_ns: int
    """CLOCK_MONOTONIC."""
    hook: str
    frontend: Frontend
    target: Endpoint
    """Where the call goes: a backend, or the frontend's own endpoint when it passes."""
    reason: PassReason | None
    """Why the call passed; None for a redirect."""
    policy_id: int
    """0 when the frontend's row was removed meanwhile."""
    client_netns: int
    """Network namespace cookie."""
    cgroup_id: int
    """The caller's own cgroup."""
    pid: int
    """The caller's process, as the node's pid namespace has it."""


def uid_digest(uid: str) -> int:
    """A digest that fits into a row; 0 for an object without a uid."""
    return int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8], "little") if uid else 0
