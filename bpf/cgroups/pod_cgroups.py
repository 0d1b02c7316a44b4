"""Finding the directories that the kubelet makes for Pods (rule P12).

Both cgroup drivers and all QoS classes are covered: `kubepods/burstable/pod<uid>` (cgroupfs) and
`kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid with _>.slice` (systemd), below any `cgroupRoot` of
the kubelet (`pods/kubepods/...`, `pods.slice/pods-kubepods.slice/...`).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from bpf.cgroups.hierarchy import Directory, ancestors, children

MAX_LEVELS = 8
"""MAX_CGROUP_LEVELS of bpf/programs/consts.h."""
_API_SERVER_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}")
"""A uid as the API server makes it, or as the kubelet makes it for a static Pod whose manifest names none."""
_NESTED_PAUSE = 200
"""After a search within Pods, the next one waits for this many times its duration: it may take 0.5 % of a core."""


class PodCgroup(NamedTuple):
    cgroup_id: int
    level_from: int
    level_to: int
    """Levels at which an ancestor look-up may find the cgroup (0 is the root of the hierarchy). Both are the same when
    the level is known."""


class PodCgroups:
    """An index of the Pods' directories below one cgroup. It is read again when a Pod is missing in it or has moved.

    A Pod may have several directories: when its cgroup driver was changed, the kubelet leaves the old one behind.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        path, top_level = ancestors(root)
        self._level, self._level_known = len(path) - 1, top_level is not None
        """Depth below the mount point, and whether that is the level in the hierarchy."""
        self._index: dict[str, list[Directory]] = {}
        """Pod uid, or a static Pod's config hash -> its directories."""
        self._nested: dict[str, list[Directory]] = {}
        """The same for Pods whose directory is within another Pod's. They are searched for less often."""
        self._next_nested_search = 0.0
        """time.monotonic()."""
        self._found: dict[str, tuple[PodCgroup, ...]] = {}
        """What `find` has returned; `update` reports which of these have moved."""

    def find(self, uid: str, config_hash: str) -> tuple[PodCgroup, ...]:
        """The Pod's cgroups as of the last `update`; empty when it had none."""
        for name in filter(None, (uid, config_hash)):
            found = self._cgroups_of(name)
            if found:
                self._found[name] = found
                return found
        return ()

    def has(self, uid: str, config_hash: str) -> bool:
        """Whether the Pod had a directory at the last `update`."""
        return bool(self._directories(uid, config_hash))

    def directories(self, uid: str, config_hash: str) -> tuple[Path, ...]:
        """The Pod's directories as of the last `update`, without those that were removed since."""
        return tuple(Path(each.path) for each in self._directories(uid, config_hash) if each.exists())

    def reread(self) -> None:
        """Reads the whole tree again, even if every Pod is known: one may have got a second directory."""
        self._index = _indexed(_walk(self._top(), into_pods=False))

    def update(self, pods: Iterable[tuple[str, str]], *, all_found: bool = False) -> frozenset[str]:
        """Reads the tree again if one of these Pods (uid and config hash) is unknown, or its directory was removed.
        With `all_found`, the same for every Pod that was ever found.

        Returns the names (uids or config hashes) for which `find` would no longer return what it has returned before.
        """
        wanted = list(pods)
        checked = [self._directories(*pod) for pod in wanted]
        if all_found:
            checked += [self._known(name) for name in self._found]
        if all(directories and all(each.exists() for each in directories) for directories in checked):
            return frozenset()
        self.reread()
        kept = {name: [each for each in known if each.exists()] for name, known in self._nested.items()}
        self._nested = {name: known for name, known in kept.items() if known}
        if not all(self._directories(*pod) for pod in wanted):
            self._search_within_pods()
        moved = frozenset(name for name, before in self._found.items() if self._cgroups_of(name) != before)
        self._found = {name: before for name, before in self._found.items() if name not in moved}
        return moved

    def _search_within_pods(self) -> None:
        """Takes thirty times as long as the ordinary search, some 20 ms for 250 Pods. So it is not repeated each time
        for a Pod whose directory does not appear."""
        started_at = time.monotonic()
        if started_at < self._next_nested_search:
            return
        self._nested = _indexed(_walk(self._top(), into_pods=True))
        ended_at = time.monotonic()
        self._next_nested_search = ended_at + (ended_at - started_at) * _NESTED_PAUSE

    def _top(self) -> Directory:
        return Directory(self._level, self._root.stat().st_ino, os.fspath(self._root))

    def _known(self, name: str) -> list[Directory]:
        return self._index.get(_dashed(name)) or self._nested.get(_dashed(name)) or []

    def _directories(self, uid: str, config_hash: str) -> list[Directory]:
        return self._known(uid) or self._known(config_hash)

    def _cgroups_of(self, name: str) -> tuple[PodCgroup, ...]:
        uncertainty = 0 if self._level_known else MAX_LEVELS - 1
        return tuple(sorted(PodCgroup(each.inode, each.level, each.level + uncertainty) for each in self._known(name)))


def _indexed(directories: Iterable[Directory]) -> dict[str, list[Directory]]:
    index: dict[str, list[Directory]] = {}
    for directory in directories:
        uid = pod_uid(directory.name)
        if uid:
            index.setdefault(uid, []).append(directory)
    return index


def _walk(top: Directory, *, into_pods: bool) -> Iterator[Directory]:
    """All directories below. Without `into_pods`, a Pod's directory is not entered, but one that merely looks like a
    Pod's still is, since Pods may be below it."""
    for directory in children(top):
        yield directory
        if into_pods or not _API_SERVER_UID.fullmatch(pod_uid(directory.name) or ""):
            yield from _walk(directory, into_pods=into_pods)


def pod_uid(directory_name: str) -> str | None:
    """The uid (or config hash) of the Pod whose directory has this name; None when no Pod's directory can have it.

    Even `pods` may be the directory of a Pod: of one with the uid `s`, since a static Pod's manifest may name any uid.
    """
    if directory_name.endswith(".slice") and "-pod" in directory_name:
        return _dashed(directory_name.removesuffix(".slice").rpartition("-pod")[2]) or None
    if directory_name.startswith("pod"):
        return _dashed(directory_name[3:]) or None
    return None


def _dashed(uid: str) -> str:
    """The uid with its dashes. The systemd driver writes `_` for each, because a dash in a slice's name separates
    levels."""
    return uid.replace("_", "-")
