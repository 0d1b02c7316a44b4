"""Everything that decides about a call: what is installed for it, and who the client is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bpf.maps.rows import AffinityRow, FrontendRow, Window
from config.domain.addresses import Endpoint, Frontend


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who calls. What is not visible from here is None."""

    name: str
    cgroup: Path | None = None
    """The cgroup that its processes are in, or are below."""
    ancestors: tuple[int, ...] | None = None
    """Ids of the cgroups from the top of what we see of the hierarchy down to `cgroup`. Empty for the host: its
    processes are in no Pod."""
    top_level: int | None = 0
    """Level of the first of them in the hierarchy; None when we see only a part of the hierarchy."""
    within: frozenset[int] | None = None
    """Ids of the cgroups that its processes may be in."""
    places: tuple[Path, ...] = ()
    """Directories of the cgroups that its processes are in."""
    is_host: bool | None = None
    """Whether it is in the network namespace of the agent, which is the node's."""
    netns: int | None = None
    """Cookie of its network namespace."""
    runtime_class: str = ""
    """spec.runtimeClassName of a Pod, which may give it a kernel of its own."""
    remark: str = ""
    """Why something is unknown, for people."""


class Neighbour(NamedTuple):
    """Another frontend at the address of a call that has no row."""

    frontend: Frontend
    policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """What is attached for this call."""

    missing: tuple[str, ...] = ()
    """Hooks of this call at which no program of ours is attached."""
    cgroup_id: int = 0
    """The cgroup that the programs are on; 0 when nothing is attached."""
    cgroup: str = ""
    """Its directory; "" when it is not visible from here."""
    covers_all: bool = False
    """Whether that is the top of the hierarchy, as far as we see it."""
    before: Mapping[str, list[str]] = field(default_factory=dict)
    """Hook -> programs of others that run before ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFacts:
    frontend: Frontend
    hooks: tuple[str, ...]
    attached: Attached
    client: Client
    port_bit: bool = False
    """Whether the map `filter` has the bit of the port."""
    frontend_bit: bool = False
    """Whether that map has the bit of address, port and protocol."""
    row: FrontendRow | None = None
    policy: str = ""
    """Name of the row's policy."""
    backends: tuple[Endpoint, ...] = ()
    """Those that the row names."""
    agent_cgroup: int = 0
    host_netns: int = 0
    lease_ns: int = 0
    renewed_ns: int = 0
    now_ns: int = 0
    """Of the clock that the programs read, CLOCK_MONOTONIC_COARSE."""
    backend_cgroups: frozenset[int] = frozenset()
    """Cgroups of the policy's Pods, which it does not redirect."""
    affinity: AffinityRow | None = None
    """The client's row for this frontend."""
    affinity_in_use: bool = False
    """Whether the backend in that row is among the frontend's `members`."""
    affinity_clients: int = 0
    """How many rows there are for this frontend."""
    window: Window | None = None

    @property
    def lease_age_seconds(self) -> float:
        return (self.now_ns - self.renewed_ns) / 1e9
