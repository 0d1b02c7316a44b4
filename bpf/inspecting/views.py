"""The installed state for people and scripts. It is read from the pinned maps only, so it works while the agent is
down.

Each view is a list of rows, empty when nothing is installed. docs/commands.md names the keys of the rows.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from bpf.cgroups.hierarchy import cgroup_path, find_cgroup
from bpf.lifecycle.attachments import attachments
from bpf.lifecycle.opened_maps import opened_maps, readable
from bpf.maps.pinned_maps import PinnedMaps
from bpf.maps.rows import FrontendFlag, FrontendRow, PassReason, Window
from config.domain.addresses import Endpoint

Row = dict[str, object]


def view(name: str, bpffs: Path) -> list[Row]:
    """Rows of `programs` or of one of _MAP_VIEWS. Raises DatapathError (bpf.lifecycle.opened_maps)."""
    if name == "programs":
        with readable(bpffs):
            return _programs(bpffs)
    with opened_maps(bpffs) as maps:
        return _MAP_VIEWS[name](maps) if maps else []


def _policies(maps: PinnedMaps) -> list[Row]:
    frontends: Counter[int] = Counter()
    backends: Counter[int] = Counter()
    for row in maps.frontend_rows():
        frontends[row.policy_id] += 1
        backends[row.policy_id] += row.count
    counters = maps.counters()
    return [
        {
            "policy": policy.name,
            "service_id": policy_id,
            "frontends": frontends[policy_id],
            "backends": backends[policy_id],
            "qos_limit": policy.limit,
            "redirects": counters[policy_id].redirects,
            "passes": {reason.label: count for reason, count in counters[policy_id].passes.items()},
            "affinity_hits": counters[policy_id].affinity_hits,
        }
        for policy_id, policy in sorted(maps.policy_rows().items(), key=lambda item: item[1].name)
        if policy_id in counters
    ]


def _frontends(maps: PinnedMaps) -> list[Row]:
    names = _names(maps)
    return [
        {
            "policy": names.get(row.policy_id, ""),
            "service_id": row.policy_id,
            "address": str(row.frontend.address),
            "port": row.frontend.port,
            "protocol": row.frontend.protocol.name,
            "backends": [str(backend) for backend in maps.backends_of(row)],
            "affinity_seconds": row.affinity_seconds,
            "mode": "Shadow" if row.flags & FrontendFlag.SHADOW else "Redirect",
            "percentage": row.percentage,
        }
        for row in _sorted_frontends(maps)
    ]


def _backends(maps: PinnedMaps) -> list[Row]:
    names = _names(maps)
    return [
        {
            "policy": names.get(row.policy_id, ""),
            "service_id": row.policy_id,
            "frontend": str(row.frontend),
            "address": str(backend.address),
            "port": backend.port,
        }
        for row in _sorted_frontends(maps)
        for backend in maps.backends_of(row)
    ]


def _affinity(maps: PinnedMaps) -> list[Row]:
    names = _names(maps)
    frontends = {row.frontend: row for row in maps.frontend_rows()}
    now = time.monotonic_ns()
    found: list[Row] = []
    for held in maps.affinity_rows():
        row = frontends.get(held.frontend)
        # The programs ignore a row that has expired, or whose frontend or backend is gone. The next sweep removes it.
        if row and held.is_fresh(row.affinity_seconds, now) and held.backend in maps.backends_of(row):
            left = row.affinity_seconds - (now - held.last_used_ns) / 1e9
            found.append(
                {
                    "policy": names.get(row.policy_id, ""),
                    "client_netns": held.client_netns,
                    "frontend": str(held.frontend),
                    "backend": str(held.backend),
                    "expires_in_seconds": round(left, 3),
                }
            )
    return found


def _qos(maps: PinnedMaps) -> list[Row]:
    counters = maps.counters()
    windows = maps.windows()
    second = time.monotonic_ns() // 1_000_000_000
    return [
        {
            "policy": policy.name,
            "limit": policy.limit,
            "window_redirects": redirects_in(windows.get(policy_id), policy.limit, second),
            "redirects": counters[policy_id].redirects,
            "passes": counters[policy_id].passes[PassReason.QOS],
        }
        for policy_id, policy in sorted(maps.policy_rows().items(), key=lambda item: item[1].name)
        if policy.limit and policy_id in counters
    ]


def redirects_in(window: Window | None, limit: int, second: int) -> int:
    """Redirects within the given second (CLOCK_MONOTONIC). A window counts the calls of one second, including
    those over the limit."""
    return min(window.calls_in(second), limit) if window else 0


def _programs(bpffs: Path) -> list[Row]:
    found = attachments(bpffs)
    root = find_cgroup("auto") if found else Path()
    paths = {cgroup_id: cgroup_path(cgroup_id, root) for each in found if (cgroup_id := each.cgroup_id)}
    return [
        {
            "hook": each.hook,
            "attached": each.attached,
            "cgroup": os.fspath(paths.get(each.cgroup_id) or ""),
            "program_id": each.program_id,
            "link_id": each.link_id,
            "build": each.build,
        }
        for each in found
    ]


def _names(maps: PinnedMaps) -> dict[int, str]:
    return {policy_id: policy.name for policy_id, policy in maps.policy_rows().items()}


def _sorted_frontends(maps: PinnedMaps) -> list[FrontendRow]:
    return sorted(maps.frontend_rows(), key=lambda row: str(Endpoint(row.frontend.address, row.frontend.port)))


_MAP_VIEWS: dict[str, Callable[[PinnedMaps], list[Row]]] = {
    "policies": _policies,
    "frontends": _frontends,
    "backends": _backends,
    "affinity": _affinity,
    "qos": _qos,
}
