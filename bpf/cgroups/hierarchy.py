"""The cgroup2 hierarchy: where it is mounted, how to walk it, and which cgroup a process is in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bpf.errors import DatapathError
from bpf.mounts import Mount, mount_of, mounts

ROOT_ID = 1
"""Id of the root of the hierarchy. The id of a cgroup is the inode number of its directory."""


class Directory(NamedTuple):
    """A cgroup's directory. `level` is its depth in the hierarchy; 0 is the root."""

    level: int
    inode: int
    path: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def exists(self) -> bool:
        """Whether it is still the same directory: one that was removed and made again has another inode."""
        try:
            return os.stat(self.path).st_ino == self.inode  # noqa: PTH116  (runs for each Pod in each second)
        except OSError:
            return False


def children(directory: Directory) -> list[Directory]:
    """Empty when the directory was removed."""
    try:
        with os.scandir(directory.path) as entries:
            return [
                Directory(directory.level + 1, entry.inode(), entry.path)
                for entry in entries
                if entry.is_dir(follow_symlinks=False)
            ]
    except FileNotFoundError:
        return []


def descendants(top: Directory) -> Iterator[Directory]:
    """`top` and every directory below it."""
    yield top
    for child in children(top):
        yield from descendants(child)


def find_cgroup(configured: str) -> Path:
    """The directory to attach to: `configured` itself, or the cgroup2 mount for `auto`. Raises DatapathError."""
    if configured == "auto":
        return _cgroup2_mount()
    path = Path(configured)
    if not (path / "cgroup.procs").exists() or not (path / "cgroup.controllers").exists():
        msg = f"datapath.cgroup: {configured} is no cgroup2 directory; allowed: auto, or one below a cgroup2 mount"
        raise DatapathError(msg)
    return path


@contextmanager
def opened_cgroup(path: Path) -> Iterator[int]:
    """Descriptor of the directory, by which the kernel attaches and lists programs."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _cgroup2_mount() -> Path:
    """If there are several mounts, the one that shows most of the hierarchy. In the agent's container there are two:
    the runtime has mounted the container's own part of the hierarchy, and the Pod's spec mounts the node's."""
    found = [mount for mount in mounts() if mount.kind == "cgroup2" and _is_visible(mount)]
    if not found:
        msg = "datapath.cgroup: auto found no cgroup2 mount; mount one (mount -t cgroup2 none DIRECTORY) or name it"
        raise DatapathError(msg)
    return min(found, key=lambda mount: _depth(mount.root)).point


def _is_visible(mount: Mount) -> bool:
    """Whether its mount point still leads to it. Another mount may cover it."""
    try:
        return mount_of(mount.point) == mount
    except OSError:
        return False


def _depth(root: str) -> int:
    """Levels below the root of our cgroup namespace; negative for a directory above that root."""
    parts = [part for part in root.split("/") if part]
    return len(parts) - 2 * parts.count("..")


def cgroup_path(cgroup_id: int, below: Path) -> Path | None:
    """The directory of the cgroup with this id: `below` itself, or one below it. None when there is none."""
    if below.stat().st_ino == cgroup_id:
        return below
    for directory, names, _ in os.walk(below):
        for name in names:
            path = Path(directory, name)
            if path.stat().st_ino == cgroup_id:
                return path
    return None


def own_cgroup(mount: Path) -> int | None:
    """The id of the cgroup that this process is in; None when that cgroup is not visible below `mount`.

    Other processes may be in it as well: on a node without containers it may be the root of the hierarchy.
    """
    directory = cgroup_of_process(os.getpid(), mount)
    return directory.stat().st_ino if directory else None


def cgroup_of_process(pid: int, mount: Path) -> Path | None:
    """The directory of the cgroup that a process of our pid namespace is in; None when it is not visible below `mount`.

    The path in /proc/PID/cgroup is relative to our cgroup namespace. In a container it is `/` for our own process,
    whatever `mount` shows. So we take it as a first guess only, and look for the process id in cgroup.procs. The kernel
    writes ids there as our own pid namespace has them, and 0 for processes of other namespaces, so nobody else has this
    id.
    """
    guess = mount / _path_of(pid).lstrip("/")
    if ".." not in guess.parts and pid in processes_in(guess):
        return guess
    return next((Path(directory) for directory, _, _ in os.walk(mount) if pid in processes_in(Path(directory))), None)


def _path_of(pid: int) -> str:
    """The path of the process's cgroup2 directory, relative to the root of our cgroup namespace."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")


def processes_in(directory: Path) -> list[int]:
    """Ids of the processes in a cgroup; 0 for each process of another pid namespace."""
    try:
        return [int(line) for line in (directory / "cgroup.procs").read_text().split()]
    except OSError:  # it is no cgroup, was removed meanwhile, or is a threaded cgroup, which lists no processes
        return []


def ancestors(directory: Path) -> tuple[tuple[int, ...], int | None]:
    """Ids of the cgroups from the mount point down to `directory`, and the level of the first one in the hierarchy:
    None when the mount shows only a part of the hierarchy, as on a node that is itself a container."""
    path = directory.resolve()
    device, found = path.stat().st_dev, [path.stat().st_ino]
    while path.parent != path and path.parent.stat().st_dev == device:
        path = path.parent
        found.append(path.stat().st_ino)
    return tuple(reversed(found)), 0 if found[-1] == ROOT_ID else None
