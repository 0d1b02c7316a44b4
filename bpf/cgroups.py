"""Finding cgroups: the cgroup2 mount, and the directories that the kubelet makes for Pods (rule P12).

Both cgroup drivers and all QoS classes are covered: `kubepods/burstable/pod<uid>` (cgroupfs) and
`kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid with _>.slice` (systemd), below whatever
`cgroupRoot` the kubelet has (`pods/kubepods/...`, `pods.slice/pods-kubepods.slice/...`).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bpf.errors import DatapathError
from bpf.mounts import Mount, mount_of, mounts

MAX_LEVELS = 8
"""MAX_CGROUP_LEVELS of bpf/programs/consts.h."""
_ROOT_ID = 1
"""Of the root of the hierarchy."""
_KUBEPODS = re.compile(r"(.+-)?kubepods(-burstable|-besteffort)?(\.slice)?")
_KUBELETS_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}")
"""As the API server makes them, and the kubelet for static Pods that name none."""
_NESTED_PAUSE = 200
"""Of a search's own duration, before the next one: half a per cent of a core."""


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


@contextmanager
def opened_cgroup(path: Path) -> Iterator[int]:
    """Descriptor of the directory, by which the kernel attaches and lists programs."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _cgroup2_mount() -> Path:
    """Of several mounts the one that shows most: in a container, the runtime mounts the container's own part of the
    hierarchy as well, and first."""
    found = [mount for mount in mounts() if mount.kind == "cgroup2" and _on_top(mount)]
    if not found:
        msg = "datapath.cgroup: auto found no cgroup2 mount; mount one (mount -t cgroup2 none DIRECTORY) or name it"
        raise DatapathError(msg)
    return min(found, key=lambda mount: _depth(mount.root)).point


def _on_top(mount: Mount) -> bool:
    """Whether its mount point leads to it, and not to another one that was mounted over it."""
    try:
        return mount_of(mount.point) == mount
    except OSError:
        return False


def _depth(root: str) -> int:
    """Levels below the root of our cgroup namespace; negative for what is above it."""
    parts = [part for part in root.split("/") if part]
    return len(parts) - 2 * parts.count("..")


def coverage_faults(cgroup: Path) -> list[str]:
    """Why attaching there redirects no Pod; empty when it does, as far as can be told."""
    if _has_pods(cgroup):
        return []
    identifier = cgroup.stat().st_ino
    if identifier != _ROOT_ID and own_cgroup(cgroup) == identifier:
        what = "is the agent's own cgroup, so nothing but the agent is covered and no Pod is redirected"
        remedy = "mount the node's /sys/fs/cgroup into the agent's container, or name the node's cgroup2 mount"
    else:
        what = "has no kubepods cgroup below it, so no Pod is covered and none is redirected"
        remedy = (
            "name a directory that has the kubelet's cgroups below it, or auto where the node's cgroups are mounted"
        )
    return [f"datapath.cgroup: {cgroup} {what}; {remedy}"]


def _has_pods(cgroup: Path) -> bool:
    """Level by level, since what is looked for is near the top."""
    path = cgroup.resolve()
    if _KUBEPODS.fullmatch(path.name) or _KUBEPODS.fullmatch(path.parent.name):
        return True
    level = [_Directory(0, path.stat().st_ino, os.fspath(path))]
    while level:
        level = [child for directory in level for child in _children(directory)]
        if any(_KUBEPODS.fullmatch(directory.name) for directory in level):
            return True
    return False


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
    """An index of Pods' cgroup directories below one cgroup, read again when a Pod is not in it or has moved.

    A Pod may have several: the kubelet leaves the old one behind when its cgroup driver is changed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._level, self._level_known = _level_of(root)
        self._index: dict[str, list[_Directory]] = {}
        """Pod uid, or a static Pod's config hash -> its directories."""
        self._nested: dict[str, list[_Directory]] = {}
        """The same of Pods within other Pods, which are looked for less often."""
        self._nested_due = 0.0
        self._given: dict[str, tuple[PodCgroup, ...]] = {}
        """What `find` gave since the index was read."""

    def find(self, uid: str, config_hash: str) -> tuple[PodCgroup, ...]:
        """As of the last `update`; empty when there was no such directory."""
        for name in filter(None, (uid, config_hash)):
            found = self._described(name)
            if found:
                self._given[name] = found
                return found
        return ()

    def has(self, uid: str, config_hash: str) -> bool:
        """Whether the last `update` saw the Pod's directory."""
        return bool(self._directories(uid, config_hash))

    def directories(self, uid: str, config_hash: str) -> tuple[Path, ...]:
        """The Pod's directories as of the last `update`, those that are still there."""
        return tuple(Path(each.path) for each in self._directories(uid, config_hash) if _exists(each))

    def reread(self) -> None:
        """Reads the whole tree, although every Pod may be known: one may have got a further directory."""
        self._index = _indexed(_walk(self._top(), into_pods=False))

    def update(self, pods: Iterable[tuple[str, str]], *, all_found: bool = False) -> frozenset[str]:
        """Looks again when one of these Pods (uid and config hash) is not known or is elsewhere by now; `all_found`:
        or one that was ever found. Names of those that `find` would no longer tell the same of."""
        wanted = list(pods)
        checked = [self._directories(*pod) for pod in wanted]
        if all_found:
            checked += [self._known(name) for name in self._given]
        if all(directories and all(map(_exists, directories)) for directories in checked):
            return frozenset()
        self.reread()
        self._nested = {name: kept for name, each in self._nested.items() if (kept := list(filter(_exists, each)))}
        if not all(self._directories(*pod) for pod in wanted):
            self._look_within_pods()
        given, self._given = self._given, {}
        moved = frozenset(name for name, was in given.items() if self._described(name) != was)
        self._given = {name: was for name, was in given.items() if name not in moved}
        return moved

    def _look_within_pods(self) -> None:
        """Takes thirty times as long, for 250 Pods some 20 ms; so for a Pod that is long in coming, not each time."""
        started = time.monotonic()
        if started < self._nested_due:
            return
        self._nested = _indexed(_walk(self._top(), into_pods=True))
        ended = time.monotonic()
        self._nested_due = ended + (ended - started) * _NESTED_PAUSE

    def _top(self) -> _Directory:
        return _Directory(self._level, self._root.stat().st_ino, os.fspath(self._root))

    def _known(self, name: str) -> list[_Directory]:
        return self._index.get(_plain(name)) or self._nested.get(_plain(name)) or []

    def _directories(self, uid: str, config_hash: str) -> list[_Directory]:
        return self._known(uid) or self._known(config_hash)

    def _described(self, name: str) -> tuple[PodCgroup, ...]:
        further = 0 if self._level_known else MAX_LEVELS - 1
        return tuple(sorted(PodCgroup(each.inode, each.level, each.level + further) for each in self._known(name)))


class _Directory(NamedTuple):
    level: int
    inode: int
    path: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


def _exists(directory: _Directory) -> bool:
    """The same one: a directory that is removed and made again has another number."""
    try:
        return os.stat(directory.path).st_ino == directory.inode  # noqa: PTH116  (each Pod, each second)
    except OSError:
        return False


def _level_of(directory: Path) -> tuple[int, bool]:
    """Depth below the mount point, and whether that is the level: not so where the mount shows a part of the hierarchy
    alone (a node that is itself a container)."""
    directory = directory.resolve()
    level = 0
    while directory.parent != directory and directory.parent.stat().st_dev == directory.stat().st_dev:
        directory, level = directory.parent, level + 1
    return level, directory.stat().st_ino == _ROOT_ID


def _indexed(directories: Iterable[_Directory]) -> dict[str, list[_Directory]]:
    index: dict[str, list[_Directory]] = {}
    for directory in directories:
        uid = pod_uid(directory.name)
        if uid:
            index.setdefault(uid, []).append(directory)
    return index


def _walk(top: _Directory, *, into_pods: bool) -> Iterator[_Directory]:
    """All that are below. A directory whose name only begins like a Pod's is gone into always."""
    for directory in _children(top):
        yield directory
        if into_pods or not _KUBELETS_UID.fullmatch(pod_uid(directory.name) or ""):
            yield from _walk(directory, into_pods=into_pods)


def _children(directory: _Directory) -> list[_Directory]:
    try:
        with os.scandir(directory.path) as entries:
            return [
                _Directory(directory.level + 1, entry.inode(), entry.path)
                for entry in entries
                if entry.is_dir(follow_symlinks=False)
            ]
    except FileNotFoundError:  # it went meanwhile
        return []


def pod_uid(directory_name: str) -> str | None:
    """The uid (or config hash) of the Pod whose directory has such a name; None for other directories.

    `pods`, too, could be the one of a Pod `s`: a static Pod's manifest may name any uid.
    """
    if directory_name.endswith(".slice") and "-pod" in directory_name:
        return _plain(directory_name.removesuffix(".slice").rpartition("-pod")[2]) or None
    if directory_name.startswith("pod"):
        return _plain(directory_name[3:]) or None
    return None


def _plain(uid: str) -> str:
    """The systemd driver writes `_` for `-`, which in the name of a slice separates levels."""
    return uid.replace("_", "-")
