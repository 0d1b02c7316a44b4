"""Removes everything that a sandbox has on the machine. It needs only the sandbox's id.

A sandbox's cgroups, network namespace and scratch folder are named by its id, which begins with the process id of its
owner. So any process can find and remove what a dead owner has left. Several processes may remove the same sandbox at
once.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

from bpf.cgroups.hierarchy import find_cgroup

PREFIX = "lrc-"
SCRATCH = Path("/tmp")  # noqa: S108  (mkdir makes the names in it, and fails if one exists)
NETNS = Path("/run/netns")
KILL_SECONDS = 20.0


def hierarchies() -> list[Path]:
    """Mount points of all cgroup hierarchies: first cgroup2's, then those of v1."""
    v1 = [
        Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines() if line.split()[2] == "cgroup"
    ]
    return [find_cgroup("auto"), *v1]


def folder_of(identity: str) -> Path:
    return SCRATCH / identity


def owner_mark(process: int) -> str:
    """The time at which the process started. A later process with the same id has another one."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]


def found() -> set[str]:
    """Ids of all sandboxes that have left anything on this machine."""
    places = [SCRATCH, NETNS, *hierarchies()]
    return {path.name for place in places for path in place.glob(f"{PREFIX}*")}


def is_dead(identity: str) -> bool:
    """Whether its owner is gone. If we cannot tell who the owner is, the sandbox counts as alive."""
    process = identity.removeprefix(PREFIX).partition("-")[0]
    if not process.isdigit():
        return False
    try:
        mark = owner_mark(int(process))
    except OSError:
        return True
    try:
        return (folder_of(identity) / "owner").read_text() != mark
    except OSError:
        return False


def sweep() -> None:
    """Removes what dead owners have left."""
    for identity in filter(is_dead, found()):
        remove(identity)


def remove(identity: str) -> None:
    """Raises TimeoutError with what is left, if something cannot be removed."""
    stop(identity)
    shutil.rmtree(folder_of(identity), ignore_errors=True)
    if folder_of(identity).exists():
        msg = f"{folder_of(identity)} cannot be removed"
        raise TimeoutError(msg)


def stop(identity: str) -> None:
    """Ends its processes and removes all that it has, except for its files. Raises TimeoutError like `remove`."""
    _kill(hierarchies()[0] / identity)
    subprocess.run(["ip", "netns", "delete", identity], check=False, capture_output=True)
    for hierarchy in hierarchies():
        _remove_cgroup(hierarchy / identity)


def _kill(cgroup: Path) -> None:
    """Kills every process below it, including stopped ones. Returns when they are gone."""
    deadline = time.monotonic() + KILL_SECONDS
    while cgroup.exists():
        with contextlib.suppress(OSError):
            (cgroup / "cgroup.kill").write_text("1")
        with contextlib.suppress(OSError):
            if "populated 0" in (cgroup / "cgroup.events").read_text():
                return
        if time.monotonic() > deadline:
            msg = f"processes below {cgroup} do not end"
            raise TimeoutError(msg)
        time.sleep(0.01)


def _remove_cgroup(cgroup: Path) -> None:
    deadline = time.monotonic() + KILL_SECONDS
    while cgroup.exists():
        for directory, _, _ in os.walk(cgroup, topdown=False):
            with contextlib.suppress(OSError):
                Path(directory).rmdir()
        if time.monotonic() > deadline:
            msg = f"{cgroup} cannot be removed"
            raise TimeoutError(msg)
        time.sleep(0.01)
