"""Checks of this node: its kernel, our rights, its cgroups, the bpffs, and what is installed there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from actors.commands.finding import Finding, judge
from bpf.build import HOOKS, SIZE_KEYS
from bpf.cgroups.coverage import coverage_faults
from bpf.cgroups.hierarchy import cgroup_path, find_cgroup
from bpf.errors import DatapathError
from bpf.inspecting.trial import NotTried, try_redirect
from bpf.lifecycle import pins
from bpf.lifecycle.attachments import active_build, attachments, programs_before
from bpf.lifecycle.kernel_features import missing_features
from bpf.lifecycle.opened_maps import opened_maps
from bpf.maps.lease import lease_age_seconds
from bpf.maps.pinned_maps import PinnedMaps
from bpf.mounts import file_system
from config.settings import DatapathSettings

_RIGHTS = {"CAP_NET_ADMIN": 12, "CAP_BPF": 39}
"""Capability -> its number (linux/capability.h)."""
_FULL = 0.9
"""From this share on, a map counts as nearly full, as in the alerts."""
_CONFIGURED = ("frontends", "backends", "affinity")
"""The maps that have exactly as many rows as the configuration says; others are larger if that is small."""
_BPF_FS = (
    "mount a bpffs on the node (mount -t bpf bpf /sys/fs/bpf), and mount datapath.bpffs into the agent's container"
)
_RESTART = "restart the agent, which attaches them again; its log says why if it cannot"


def node_findings(settings: DatapathSettings) -> Iterator[Finding]:
    yield _kernel()
    yield _rights()
    yield _cgroup(settings)
    yield _clocks()
    yield _trial()
    yield _bpffs(settings.bpffs)
    try:
        yield _attached(settings.bpffs)
        yield _first(settings.bpffs)
        with opened_maps(settings.bpffs) as maps:
            if maps is not None:
                yield _lease(maps)
                yield _fill(maps)
    except (DatapathError, OSError) as error:
        remedy = "run this as root, or with CAP_BPF and CAP_NET_ADMIN, where datapath.bpffs is mounted"
        yield Finding("installed", False, f"what is installed cannot be read: {error}", remedy)


def _kernel() -> Finding:
    remedy = "docs/compatibility.md has the kernels and options that work; a container needs CAP_BPF and CAP_NET_ADMIN"
    faults = [f"missing: {each}" for each in missing_features()]
    return judge("kernel", faults, f"{os.uname().release} has every feature that the programs use", remedy)


def _rights() -> Finding:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    effective = int(line.split()[1], 16)
    faults = [f"{name} is missing" for name, number in _RIGHTS.items() if not effective >> number & 1]
    return judge("rights", faults, " and ".join(_RIGHTS), "add them to securityContext.capabilities, or run as root")


def _cgroup(settings: DatapathSettings) -> Finding:
    try:
        cgroup = find_cgroup(settings.cgroup)
    except DatapathError as error:
        return Finding("cgroup", False, str(error), "mount the node's /sys/fs/cgroup (cgroup v2) into the container")
    faults = coverage_faults(cgroup)
    remedy = "change datapath.cgroup as the detail says"
    return judge("cgroup", faults, f"{cgroup} has the kubelet's cgroups below it", remedy)


def _clocks() -> Finding:
    """The lease is a time of CLOCK_MONOTONIC. A time namespace shifts it for processes, but not for BPF programs."""
    path = Path("/proc/self/timens_offsets")
    lines = path.read_text().splitlines() if path.exists() else []
    shifted = [name for name, *offsets in (line.split() for line in lines) if any(map(int, offsets))]
    faults = [f"this container is in a time namespace, which shifts its clock {name}" for name in shifted]
    remedy = "run the agent in the node's time namespace; its lease means nothing in another one"
    return judge("clocks", faults, "this command has the clocks of the node", remedy)


def _trial() -> Finding:
    try:
        fault = try_redirect()
    except NotTried as why:
        return Finding("redirect", True, f"not tried: {why}")
    ok_detail = "a test program of this command redirected a test call"
    remedy = "give this command the agent's rights (CAP_BPF, CAP_NET_ADMIN); `kernel` and `rights` say what is missing"
    return judge("redirect", [fault] if fault else [], ok_detail, remedy)


def _bpffs(bpffs: Path) -> Finding:
    existing = next(path for path in (bpffs, *bpffs.parents) if path.exists())
    kind = file_system(existing)
    if kind != pins.BPFFS_TYPE:
        detail = f"datapath.bpffs: {bpffs} is on {kind or 'an unknown file system'}, and not on a bpffs"
        return Finding("bpffs", False, detail, _BPF_FS)
    faults = [f"{bpffs / name} is not ours" for name in pins.foreign(bpffs)]
    remedy = "give datapath.bpffs a directory of the agent's own, or remove these files if nobody needs them"
    return judge("bpffs", faults, f"{bpffs} is on a bpffs, and holds only what is ours", remedy)


def _attached(bpffs: Path) -> Finding:
    found = {each.hook: each for each in attachments(bpffs) if each.attached}
    faults = [f"no program is attached at {hook}" for hook in sorted(HOOKS) if hook not in found]
    if not found:
        faults = ["no program is attached"]
    if len({each.build for each in found.values()}) > 1:
        faults.append("programs of two builds are attached")
    return judge("attached", faults, f"all {len(HOOKS)} hooks, build {active_build(bpffs)}", f"start or {_RESTART}")


def _first(bpffs: Path) -> Finding:
    found = next((each for each in attachments(bpffs) if each.attached), None)
    cgroup = cgroup_path(found.cgroup_id, find_cgroup("auto")) if found else None
    if cgroup is None:
        detail = "our programs are not attached" if found is None else "their cgroup is not visible from here"
        return Finding("first", True, f"{detail}, so nothing runs before them")
    before = programs_before(bpffs, cgroup)
    faults = [f"{hook}: {', '.join(names)} runs before ours on {cgroup}" for hook, names in before.items()]
    remedy = (
        "`bpftool prog show id ID` tells whose it is; run.py detach, stop the other software, start the agent, then "
        "start the other software again"
    )
    return judge("first", faults, f"no other program runs before ours on {cgroup}", remedy)


def _lease(maps: PinnedMaps) -> Finding:
    length, age = maps.config().lease_ns / 1e9, lease_age_seconds(maps["lease"])
    if not length:
        return Finding("lease", True, "datapath.lease_seconds is 0: rows stay in force without an agent")
    faults = [f"it was renewed {age:.0f} s ago and lasts {length:g} s: no call is redirected"] if age > length else []
    remedy = "start the agent; if it runs, run.py status says what keeps it from renewing the lease"
    return judge("lease", faults, f"renewed {max(age, 0):.1f} s ago, and lasts {length:g} s", remedy)


def _fill(maps: PinnedMaps) -> Finding:
    shares = {name: (maps.rows_in_use(name), maps[name].max_entries) for name in _CONFIGURED}
    faults = [
        f"{name} has {rows} of {capacity} rows in use ({SIZE_KEYS[name]})"
        for name, (rows, capacity) in shares.items()
        if rows >= _FULL * capacity
    ]
    ok_detail = ", ".join(f"{name} {rows} of {capacity}" for name, (rows, capacity) in shares.items())
    return judge("maps", faults, f"rows in use: {ok_detail}", "raise the key that is named, and restart the agent")
