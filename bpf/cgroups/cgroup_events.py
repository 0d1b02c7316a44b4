"""Hearing when the last process of a cgroup has ended (rule P18).

When the last process in a cgroup and in those below it has ended, the kernel sets `populated` in the cgroup's
`cgroup.events` to 0 and notifies the watchers of that file (cgroup-v2.rst, "[Un]populated Notification").
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from pathlib import Path

from inotify_simple import Event, INotify, flags

_EVENTS = "cgroup.events"


def is_populated(directory: Path) -> bool:
    """Whether a process is in the cgroup or below it; False if the cgroup was removed."""
    try:
        events = (directory / _EVENTS).read_text()
    except OSError:
        return False
    return "populated 1" in events.splitlines()


class CgroupEvents:
    """One inotify descriptor for all cgroups. `run` blocks in a thread of its own; the rest is for the owner."""

    def __init__(self, on_change: Callable[[Path], None]) -> None:
        """`on_change` is called in the thread of `run`, with a directory whose `cgroup.events` has changed."""
        self._on_change = on_change
        self._inotify = INotify()
        self._waker, self._woken = socket.socketpair()
        self._watches: dict[Path, int] = {}
        self._directories: dict[int, Path] = {}
        """Written by the owner, read by the thread: an entry is added before its first event can come."""

    def watch(self, directory: Path) -> None:
        """Raises OSError: the directory is gone, or fs.inotify.max_user_watches is reached (ENOSPC)."""
        if directory not in self._watches:
            watch = self._inotify.add_watch(directory / _EVENTS, flags.MODIFY)
            self._watches[directory] = watch
            self._directories[watch] = directory

    def is_watched(self, directory: Path) -> bool:
        return directory in self._watches

    def unwatch(self, directory: Path) -> None:
        """Does nothing if the directory is not watched, or gone."""
        watch = self._watches.pop(directory, None)
        if watch is None:
            return
        self._directories.pop(watch, None)
        try:
            self._inotify.rm_watch(watch)
        except OSError:  # the kernel removed the watch together with the file
            return

    def run(self) -> None:
        """Calls `on_change` until `stop` is called."""
        with self._inotify, self._woken:
            waiting = select.poll()
            for descriptor in (self._inotify.fileno(), self._woken.fileno()):
                waiting.register(descriptor, select.POLLIN)
            while all(descriptor != self._woken.fileno() for descriptor, _ in waiting.poll()):
                for event in self._inotify.read(timeout=0):
                    for directory in self._changed_directories(event):
                        self._on_change(directory)

    def _changed_directories(self, event: Event) -> list[Path]:
        """All of them if the kernel dropped events because its queue was full."""
        if event.mask & flags.Q_OVERFLOW:
            return list(self._directories.values())
        directory = self._directories.get(event.wd)
        return [directory] if directory is not None else []

    def stop(self) -> None:
        """Makes `run` return. May be called in any thread."""
        self._waker.close()
