"""Finding cgroups: the cgroup2 mount, and the directories that the kubelet makes for Pods (rule P12).

Both cgroup drivers and all QoS classes are covered: `kubepods/burstable/pod<uid>` (cgroupfs) and
`kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid with _>.slice` (systemd).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bpf.errors import DatapathError

MAX_LEVELS = 8
"""MAX_CGROUP_LEVELS of bpf/consts.h."""


class PodCgroup(NamedTuple):
    cgroup_id: int
    level_from: int
    level_to: int
    """Levels at which an ancestor look-up may meet it (0 is the root of the hierarchy); one, when that is known."""


def find_cgroup(configured: str) -> Path:
    """The directory to attach to; `auto` is the cgroup2 mount."""
    if configured == "auto":
        return _cgroup2_mount()
    path = Path(configured)
    if not (path / "cgroup.procs").exists() or not (path / "cgroup.controllers").exists():
        msg = f"datapath.cgroup: {configured} is no cgroup2 directory; allowed: auto, or one below a cgroup2 mount"
        raise DatapathError(msg)
    return path


def _cgroup2_mount() -> Path:
    """The mount that shows the hierarchy's root (inode number 1): in a container, the runtime mounts the container's
    own part of it as well, and first. Where the machine is itself a container none does: the first one then."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    fields = [line.split()[4] for line in lines if line.partition(" - ")[2].split()[0] == "cgroup2"]
    mounts = [Path(field.encode().decode("unicode_escape")) for field in fields]
    if not mounts:
        msg = "datapath.cgroup: auto found no cgroup2 mount; mount one (mount -t cgroup2 none DIRECTORY) or name it"
        raise DatapathError(msg)
    return next((mount for mount in mounts if mount.stat().st_ino == 1), mounts[0])


def cgroup_path(cgroup_id: int, below: Path) -> Path | None:
    """The directory of a cgroup: its id is the inode number."""
    if below.stat().st_ino == cgroup_id:
        return below
    for directory, names, _ in os.walk(below):
        for name in names:
            path = Path(directory, name)
            if path.stat().st_ino == cgroup_id:
                return path
    return None


def own_cgroup(mount: Path) -> int | None:
    """The id of the cgroup that this process is in; None when it is not visible below `mount`.

    It may hold other processes too: on a node without containers it may be the root of the hierarchy (id 1).
    """
    directory = _own_directory(mount)
    return directory.stat().st_ino if directory else None


def _own_directory(mount: Path) -> Path | None:
    """/proc/self/cgroup is relative to our cgroup namespace, and in a container says `/` whatever `mount` shows. So it
    is a guess only, and the pids in cgroup.procs decide: ours is written there as in our own pid namespace, where no
    other process has it (those of other pid namespaces are 0)."""
    guess = mount / _own_path().lstrip("/")
    if ".." not in guess.parts and _holds_us(guess):
        return guess
    return next((Path(directory) for directory, _, _ in os.walk(mount) if _holds_us(Path(directory))), None)


def _own_path() -> str:
    """As /proc/self/cgroup has it, of cgroup2: relative to the root of our cgroup namespace."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")


def _holds_us(directory: Path) -> bool:
    try:
        return str(os.getpid()) in (directory / "cgroup.procs").read_text().split()
    except OSError:  # no cgroup, one that went meanwhile, or one of threads, which does not list processes
        return False


class PodCgroups:
    """An index of Pods' cgroup directories below one cgroup, read again when it is asked to."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._level, self._level_known = _level_of(root)
        self._index: dict[str, tuple[Path, PodCgroup]] = {}
        """Pod uid, or a static Pod's config hash -> directory and its numbers."""

    def refresh(self) -> None:
        self._index = {uid: (path, self._describe(path)) for uid, path in _walk(self._root)}

    def find(self, uid: str, config_hash: str) -> PodCgroup | None:
        """None when the directory does not exist, or did not at the last `refresh`."""
        for name in filter(None, (uid, config_hash)):
            known = self._index.get(name)
            if known and known[0].exists():
                return known[1]
        return None

    def _describe(self, path: Path) -> PodCgroup:
        level = self._level + len(path.relative_to(self._root).parts)
        return PodCgroup(path.stat().st_ino, level, level if self._level_known else level + MAX_LEVELS - 1)


def _level_of(directory: Path) -> tuple[int, bool]:
    """Depth below the mount point, and whether that is the level: not so where the mount shows a part of the hierarchy
    alone (a node that is itself a container). The root of the hierarchy has inode number 1."""
    directory = directory.resolve()
    level = 0
    while directory.parent != directory and directory.parent.stat().st_dev == directory.stat().st_dev:
        directory, level = directory.parent, level + 1
    return level, directory.stat().st_ino == 1


def _walk(directory: Path) -> Iterator[tuple[str, Path]]:
    try:
        entries = [entry for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:  # it went meanwhile
        return
    for entry in entries:
        uid = pod_uid(entry.name)
        if uid:
            yield uid, Path(entry.path)
        else:
            yield from _walk(Path(entry.path))


def pod_uid(directory_name: str) -> str | None:
    """The uid (or config hash) in the name of a Pod's cgroup directory; None for other directories."""
    if directory_name.startswith("pod"):
        return directory_name[3:] or None
    if directory_name.endswith(".slice") and "-pod" in directory_name:
        return directory_name.removesuffix(".slice").partition("-pod")[2].replace("_", "-") or None
    return None
