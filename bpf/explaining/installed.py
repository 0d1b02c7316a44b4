"""Reads what is installed and attached for one call. Changes nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

from bpf.cgroups.hierarchy import cgroup_path, find_cgroup
from bpf.explaining.call import Call
from bpf.explaining.facts import Attached, CallFacts, Client, Neighbour
from bpf.lifecycle.attachments import attachments, programs_before
from bpf.maps import hashes, packing
from bpf.maps.pinned_maps import PinnedMaps
from bpf.maps.rows import AffinityRow, FrontendRow
from config.domain.addresses import Endpoint, Frontend

_CLOCK_MONOTONIC_COARSE = 6
"""From linux/time.h: the clock that bpf_ktime_get_coarse_ns reads."""
_READS = 3
"""A row is read this often at most: again if it was replaced while we read its backends."""


def calling_namespaces(maps: PinnedMaps) -> dict[int, int]:
    """Cgroup -> cookie of the network namespace from which it called last, as far as calls were recorded for a watcher
    (`run.py monitor`, `log.redirects`)."""
    recorded = sorted(maps.decisions(), key=lambda each: each.time_ns)
    return {each.cgroup_id: each.client_netns for each in recorded}


def read_attached(bpffs: Path, hooks: tuple[str, ...], client: Client) -> Attached:
    """What is attached at these hooks. `before` has the programs that run before ours for this client; some of them may
    be on its own cgroup."""
    found = {each.hook: each for each in attachments(bpffs) if each.attached and each.hook in hooks}
    missing = tuple(hook for hook in hooks if hook not in found)
    if not found:
        return Attached(missing=missing)
    cgroup_id = next(iter(found.values())).cgroup_id
    root = find_cgroup("auto")
    cgroup = cgroup_path(cgroup_id, root)
    covered = cgroup_id in (client.ancestors or ())
    places = (client.places if covered else ()) or ((cgroup,) if cgroup else ())
    before: dict[str, list[str]] = {}
    for place in places:
        for hook, names in programs_before(bpffs, place).items():
            before[hook] = sorted({*before.get(hook, ()), *names})
    return Attached(
        missing=missing,
        cgroup_id=cgroup_id,
        cgroup=os.fspath(cgroup or ""),
        covers_all=cgroup == root,
        before=before,
    )


def read_facts(maps: PinnedMaps, call: Call, client: Client, attached: Attached) -> CallFacts:
    frontend, filtered = call.frontend, maps["filter"].lookup(packing.ONLY_KEY) or bytes(maps["filter"].value_size)
    port_bit, frontend_bit = (bool(filtered[i // 8] >> i % 8 & 1) for i in hashes.filter_bits(frontend))
    config = maps.config()
    row, backends = _read_row(maps, frontend)
    policy = maps.policy(row.policy_id) if row else None
    affinity, clients = _affinity(maps, row, client) if row and row.affinity_seconds else (None, 0)
    return CallFacts(
        frontend=frontend,
        hooks=call.hooks,
        attached=attached,
        client=client,
        port_bit=port_bit,
        frontend_bit=frontend_bit,
        row=row,
        policy=policy.name if policy else "",
        backends=backends,
        agent_cgroup=maps.agent_cgroup(),
        host_netns=config.host_netns,
        lease_ns=config.lease_ns,
        renewed_ns=maps.lease_renewed_ns(),
        now_ns=time.clock_gettime_ns(_CLOCK_MONOTONIC_COARSE),
        backend_cgroups=_backend_cgroups(maps, row, client) if row else frozenset(),
        affinity=affinity,
        affinity_in_use=affinity is not None and maps.is_member(frontend, affinity.backend),
        affinity_clients=clients,
        window=maps.window(row.policy_id) if row else None,
    )


def _read_row(maps: PinnedMaps, frontend: Frontend) -> tuple[FrontendRow | None, tuple[Endpoint, ...]]:
    row: FrontendRow | None = None
    backends: tuple[Endpoint, ...] = ()
    for _ in range(_READS):
        row = maps.frontend_row(frontend)
        backends = maps.backends_of(row) if row else ()
        if row is None or len(backends) == row.count:
            break
    return row, backends


def _backend_cgroups(maps: PinnedMaps, row: FrontendRow, client: Client) -> frozenset[int]:
    return frozenset(each for each in client.ancestors or () if maps.is_backend_cgroup(each, row.policy_id))


def _affinity(maps: PinnedMaps, row: FrontendRow, client: Client) -> tuple[AffinityRow | None, int]:
    """The client's row, and how many clients have one. They are counted only if the client is unknown."""
    if client.netns is not None:
        return maps.affinity_row(row.frontend, client.netns), 0
    return None, sum(each.frontend == row.frontend for each in maps.affinity_rows())


def neighbours(maps: PinnedMaps, frontend: Frontend) -> list[Neighbour]:
    """Frontends with the same address: the user may have named a wrong port or protocol."""
    names = {policy_id: policy.name for policy_id, policy in maps.policy_rows().items()}
    rows = (row for row in maps.frontend_rows() if row.frontend.address == frontend.address)
    return sorted(Neighbour(row.frontend, names.get(row.policy_id, "")) for row in rows)
