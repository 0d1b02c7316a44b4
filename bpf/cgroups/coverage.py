"""Whether programs that are attached to a cgroup see the calls of Pods."""

from __future__ import annotations

import os
import re
from pathlib import Path

from bpf.cgroups.hierarchy import ROOT_ID, Directory, children, own_cgroup

_KUBEPODS = re.compile(r"(.+-)?kubepods(-burstable|-besteffort)?(\.slice)?")


def coverage_faults(cgroup: Path) -> list[str]:
    """Why programs on this cgroup would redirect no Pod, and the remedy; empty when there seem to be Pods below it."""
    if not cgroup.is_dir():
        gone = "is gone, and our programs with it, so no Pod is redirected"
        return [f"datapath.cgroup: {cgroup} {gone}; restart the agent when the node has its cgroups again"]
    if _has_pods(cgroup):
        return []
    identifier = cgroup.stat().st_ino
    if identifier != ROOT_ID and own_cgroup(cgroup) == identifier:
        what = "is the agent's own cgroup, so nothing but the agent is covered and no Pod is redirected"
        remedy = "mount the node's /sys/fs/cgroup into the agent's container, or name the node's cgroup2 mount"
    else:
        what = "has no kubepods cgroup below it, so no Pod is covered and none is redirected"
        remedy = (
            "name a directory that has the kubelet's cgroups below it, or auto where the node's cgroups are mounted"
        )
    return [f"datapath.cgroup: {cgroup} {what}; {remedy}"]


def _has_pods(cgroup: Path) -> bool:
    """Searches level by level, since the kubelet's cgroups are near the top of the hierarchy."""
    path = cgroup.resolve()
    if _KUBEPODS.fullmatch(path.name) or _KUBEPODS.fullmatch(path.parent.name):
        return True
    level = [Directory(0, path.stat().st_ino, os.fspath(path))]
    while level:
        level = [child for directory in level for child in children(directory)]
        if any(_KUBEPODS.fullmatch(directory.name) for directory in level):
            return True
    return False
