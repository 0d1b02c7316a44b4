"""Watches a directory of manifests by inotify: which files were written, and whether the directory is there at all.

It owns the watches of the directory and of all its ancestors, since the directory may be created, renamed or replaced
at any time. `k8s.sources.links` watches what lies behind links, and its events are merged here.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

from inotify_simple import Event, INotify, flags

from k8s.sources.links import FileChange, LinkWatcher, will_be_closed
from k8s.sources.manifest_files import is_manifest

_ANCESTOR_MASK = flags.CREATE | flags.MOVED_TO | flags.MOVED_FROM | flags.DELETE | flags.ONLYDIR | flags.MASK_ADD
_DIRECTORY_MASK = _ANCESTOR_MASK | flags.MODIFY | flags.CLOSE_WRITE | flags.ATTRIB | flags.DELETE_SELF | flags.MOVE_SELF


@dataclass(slots=True)
class FileEvents:
    """What happened since the last read, summed up."""

    gone: set[str] = field(default_factory=set)
    ready: set[str] = field(default_factory=set)
    """Files to read: they were closed after writing, moved in, or linked."""
    is_other_directory: bool = False
    """The directory appeared, disappeared or was replaced, so that all its files must be read."""
    overflow: bool = False
    """The kernel dropped events, so that everything must be listed again."""


class DirectoryWatcher:
    """For one thread."""

    def __init__(self, directory: Path, links: LinkWatcher) -> None:
        self._directory = directory
        self._links = links
        self._inotify = INotify(nonblocking=True)
        self._watch: int | None = None
        """Of the directory itself; None while it does not exist."""
        self._ancestors: dict[int, set[str]] = {}
        """Watch of an ancestor -> names in it that lead to the directory."""
        self.being_written: set[str] = set()
        """Files to ignore until their writer closes them."""

    def fileno(self) -> int:
        return int(self._inotify.fileno())

    def close(self) -> None:
        self._inotify.close()

    @property
    def exists(self) -> bool:
        return self._watch is not None

    def manifests(self) -> set[str]:
        """The names of all manifest files."""
        if not self.exists:
            return set()
        # If the directory has gone in the meantime, an event will say so.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return {name for name in os.listdir(self._directory) if is_manifest(name)}
        return set()

    def rewatch(self) -> bool:
        """Watches the directory and all its ancestors, as far as they exist. Returns whether another directory is there
        than before.

        It goes from the root down and watches each ancestor before it looks at the next, so that whatever is created
        meanwhile causes an event.
        """
        before = set(self._ancestors) | ({self._watch} if self._watch is not None else set())
        ancestors: dict[int, set[str]] = {}
        path = Path(self._directory.anchor)
        for name in self._directory.parts[1:]:
            # An ancestor that we may not read can't be watched. The directory itself must be readable.
            with contextlib.suppress(PermissionError):
                watch = self._add_watch(path, _ANCESTOR_MASK)
                if watch is None:
                    break
                ancestors.setdefault(watch, set()).add(name)
            path = path / name
        watch = self._add_watch(self._directory, _DIRECTORY_MASK)
        is_other = watch != self._watch
        for unused in before - set(ancestors) - {watch}:
            try:
                self._inotify.rm_watch(unused)
            except OSError as error:
                if error.errno != errno.EINVAL:  # the watch ended together with what it watched
                    raise
        self._ancestors, self._watch = ancestors, watch
        if is_other:
            self.being_written.clear()
        return is_other

    def read(self) -> FileEvents:
        """What the kernel has reported; does not wait."""
        found = FileEvents()
        must_rewatch = False
        for event in self._inotify.read(timeout=0):
            if event.mask & flags.Q_OVERFLOW:
                found.overflow = True
            if event.name and event.name in self._ancestors.get(event.wd, ()):
                must_rewatch = True
            if event.wd == self._watch:
                if event.mask & (flags.DELETE_SELF | flags.MOVE_SELF | flags.IGNORED | flags.UNMOUNT):
                    must_rewatch = found.is_other_directory = True
                elif is_manifest(event.name):
                    self._take_file_event(event, found)
        for name, change in self._links.read():
            self._take_link_change(name, change, found)
        if must_rewatch:
            found.is_other_directory |= self.rewatch()
        if found.overflow:
            self.being_written.clear()
            self.rewatch()
        return found

    def _take_file_event(self, event: Event, found: FileEvents) -> None:
        name, mask = event.name, event.mask
        if mask & (flags.DELETE | flags.MOVED_FROM):
            self.being_written.discard(name)
            found.ready.discard(name)
            found.gone.add(name)
        elif mask & flags.MODIFY or (mask & flags.CREATE and will_be_closed(self._directory / name)):
            self.being_written.add(name)
            found.ready.discard(name)
        elif mask & (flags.CLOSE_WRITE | flags.MOVED_TO):
            self.being_written.discard(name)
            found.gone.discard(name)
            found.ready.add(name)
        elif name not in self.being_written:
            # A link was created, or the permissions changed.
            found.gone.discard(name)
            found.ready.add(name)

    def _take_link_change(self, name: str, change: FileChange, found: FileEvents) -> None:
        if change == FileChange.LOST:
            found.overflow = True
        elif change == FileChange.WRITING:
            self.being_written.add(name)
            found.ready.discard(name)
        elif change == FileChange.DONE or name not in self.being_written:
            self.being_written.discard(name)
            found.ready.add(name)

    def _add_watch(self, path: Path, mask: int) -> int | None:
        """None when there is no such directory."""
        try:
            return int(self._inotify.add_watch(path, mask))
        except (FileNotFoundError, NotADirectoryError):
            return None
