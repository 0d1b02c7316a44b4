"""Watches what lies behind a manifest's name: the target of a link can change without an event in the directory.

It owns an inotify descriptor. A symbolic link may lead through other links and directories (as in a mounted ConfigMap),
so it watches every step of the way and the file at its end. It also watches a file with several names (hard links),
since the file may be written under another name.
"""

from __future__ import annotations

import errno
import stat
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from pathlib import Path

from inotify_simple import Event, INotify, flags

_MAX_LINKS = 40
"""The kernel's limit for one path (MAXSYMLINKS); beyond it, opening fails with ELOOP."""
_STEP_MASK = flags.CREATE | flags.MOVED_TO | flags.MOVED_FROM | flags.DELETE | flags.CLOSE_WRITE | flags.ONLYDIR
_FILE_MASK = flags.MODIFY | flags.CLOSE_WRITE | flags.ATTRIB


class FileChange(Enum):
    """What happened behind a manifest's name."""

    WRITING = "writing"
    """Its file is being written. Another event follows when it is closed."""
    DONE = "done"
    """Its file was closed after writing, or the link leads to another file now, or to none."""
    TOUCHED = "touched"
    """The permissions of its file, or the number of its names, changed."""
    LOST = "lost"
    """The kernel dropped events, so that any manifest may have changed."""


class LinkWatcher:
    """Call `follow` before a manifest is read, so that no later change is missed. `read` then says what happened."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._inotify = INotify(nonblocking=True)
        self._watches: dict[str, set[tuple[int, str]]] = {}
        """Manifest that is a link -> its watches, each with a directory entry, or "" for the file itself."""
        self._concerned: defaultdict[int, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        """Watch -> entry -> manifests."""
        self._paths: dict[int, Path] = {}
        """Watch -> the path that is watched."""

    def fileno(self) -> int:
        return int(self._inotify.fileno())

    def close(self) -> None:
        self._inotify.close()

    @property
    def followed(self) -> frozenset[str]:
        """The manifests that are links, symbolic or hard."""
        return frozenset(self._watches)

    def follow(self, name: str) -> None:
        """Watches the way to the file as it is now, in place of an earlier way. A manifest that is gone has no way."""
        former = self._watches.pop(name, set())
        present: set[tuple[int, str]] = set()
        path = self._directory / name
        is_link = path.is_symlink()
        for directory, entry in steps(path) if is_link else ():
            self._watch(directory, _STEP_MASK, entry, present)
        if is_link or _has_other_names(path):
            self._watch(path, _FILE_MASK, "", present)
        for watch, entry in present:
            self._concerned[watch][entry].add(name)
        if present:
            self._watches[name] = present
        for watch, entry in former - present:
            self._unwatch(watch, entry, name)

    def read(self) -> Iterator[tuple[str, FileChange]]:
        """The manifests to which something happened, and what, in order. Does not wait."""
        for event in self._inotify.read(timeout=0):
            if event.mask & flags.Q_OVERFLOW:
                yield "", FileChange.LOST
            change = self._change(event)
            for name in sorted(self._concerned.get(event.wd, {}).get(event.name, ())):
                yield name, change

    def _change(self, event: Event) -> FileChange:
        if event.mask & flags.MODIFY:
            return FileChange.WRITING
        if event.mask & flags.ATTRIB:
            return FileChange.TOUCHED
        directory = self._paths.get(event.wd)
        is_new = directory and event.mask & flags.CREATE and will_be_closed(directory / event.name)
        return FileChange.WRITING if is_new else FileChange.DONE

    def _watch(self, path: Path, mask: int, entry: str, found: set[tuple[int, str]]) -> None:
        # What does not exist, or may not be read, can't be watched, but the directories that lead to it can.
        with suppress(OSError):
            watch = int(self._inotify.add_watch(path, mask))
            self._paths[watch] = path
            found.add((watch, entry))

    def _unwatch(self, watch: int, entry: str, name: str) -> None:
        entries = self._concerned[watch]
        entries[entry].discard(name)
        if not entries[entry]:
            del entries[entry]
        if entries:
            return
        del self._concerned[watch], self._paths[watch]
        try:
            self._inotify.rm_watch(watch)
        except OSError as error:
            if error.errno != errno.EINVAL:  # the watch ended together with what it watched
                raise


def will_be_closed(created: Path) -> bool:
    """Whether a new entry is a file that its writer will close. A link is complete when it is created."""
    try:
        found = created.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def steps(path: Path) -> Iterator[tuple[Path, str]]:
    """The steps by which the kernel finds the file: each a directory (free of links) and an entry in it."""
    current = path.parent.resolve()
    ahead = [path.name]
    links = 0
    while ahead and links <= _MAX_LINKS:
        part = ahead.pop(0)
        if part == "..":
            current = current.parent
            continue
        yield current, part
        try:
            target = (current / part).readlink()
        except OSError as error:
            # EINVAL says that it is not a link. Anything else ends the way: an entry is absent, or is not a directory.
            if error.errno != errno.EINVAL:
                return
            current = current / part
            continue
        links += 1
        current = Path("/") if target.is_absolute() else current
        ahead = [*target.parts[target.is_absolute() :], *ahead]


def _has_other_names(path: Path) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_nlink > 1
