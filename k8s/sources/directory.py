"""DirectorySource: manifests in a directory as a source of objects (docs/architecture.md), watched by inotify.

Owns the inotify descriptor, the watches and what it last read of each file; runs in one thread, its watcher's. Links
are followed in `k8s.sources.links`, what a file holds is decided in `k8s.objects.manifests`, and what a change of files
changes in `k8s.sources.store`. Delivers `k8s.sources.source` events.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import stat
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from inotify_simple import Event, INotify, flags

from config.input.parsing import MAX_BYTES, FileFault
from config.settings import RedirectSettings
from k8s.objects.identity import Identity, identity_text
from k8s.objects.manifests import may_hold, read_manifest
from k8s.objects.model import KubeObject
from k8s.sources.links import Change, LinkWatcher, will_be_closed
from k8s.sources.source import Deliver, Heard, ListingEnded, ListingStarted, Removed, Upserted, Wanted
from k8s.sources.store import Delta, ManifestStore

_log = logging.getLogger(__name__)

_ANCESTOR_MASK = flags.CREATE | flags.MOVED_TO | flags.MOVED_FROM | flags.DELETE | flags.ONLYDIR | flags.MASK_ADD
_DIRECTORY_MASK = _ANCESTOR_MASK | flags.MODIFY | flags.CLOSE_WRITE | flags.ATTRIB | flags.DELETE_SELF | flags.MOVE_SELF
Changes: TypeAlias = dict[str, Mapping[Identity, KubeObject] | None]
"""File -> what it holds now; None when it is gone."""

_SUFFIXES = (".yaml", ".yml", ".json")


def is_manifest(name: str) -> bool:
    return name.endswith(_SUFFIXES) and not name.startswith(".")


class _Batch:
    """What a batch of inotify events asks for."""

    def __init__(self) -> None:
        self.gone: set[str] = set()
        self.ready: set[str] = set()
        self.rescan = False
        self.rewatch = False
        self.overflow = False


class DirectorySource:
    """See `k8s.sources.source.Source`."""

    def __init__(
        self,
        directory: Path,
        *,
        kinds: frozenset[str],
        node_name: str,
        redirect: RedirectSettings,
        deliver: Deliver,
        reports_files: bool,
    ) -> None:
        self._directory = Path(os.path.abspath(directory))
        self._kinds = kinds
        self._node_name = node_name
        self._redirect = redirect
        self._deliver = deliver
        self._reports_files = reports_files
        # A source that takes over from a failed one must number its listings higher.
        self._listing = time.monotonic_ns()
        self._store = ManifestStore()
        self._reported: dict[str, frozenset[str]] = {}
        """File -> the warnings that its present content has got."""
        self._being_written: set[str] = set()
        self._links = LinkWatcher(self._directory)
        self._listed = False
        self._exists = False
        self._ancestors: dict[int, set[str]] = {}
        """Watch of an ancestor -> names in it that lead to the directory."""
        self._watch: int | None = None
        self._stopping = threading.Event()
        self._relist_asked = threading.Event()
        # Guards the descriptor alone: stop may come when run has ended.
        self._wake_lock = threading.Lock()
        self._wake: int | None = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def stop(self) -> None:
        self._stopping.set()
        self._wake_up()

    def relist(self, since: float = 0.0) -> None:
        """Every file is read again, so a listing is never older than the wish for it."""
        del since
        self._relist_asked.set()
        self._wake_up()

    def subscribe(self, wanted: frozenset[Wanted], revision: int) -> None:
        """Every object of the directory is delivered, wanted or not."""

    def _wake_up(self) -> None:
        with self._wake_lock:
            if self._wake is not None:
                os.eventfd_write(self._wake, 1)

    def run(self) -> None:
        wake = self._wake
        if wake is None:
            raise RuntimeError("a source runs once")
        inotify = INotify(nonblocking=True)
        try:
            self._run(inotify, wake)
        finally:
            inotify.close()
            self._links.close()
            with self._wake_lock:
                self._wake = None
                os.close(wake)

    def _run(self, inotify: INotify, wake: int) -> None:
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        poller.register(inotify.fileno(), select.POLLIN)
        poller.register(self._links.fileno(), select.POLLIN)
        self._rewatch(inotify)
        if not self._exists:
            self._warn_of_files("%s does not exist; waiting for it, nothing is redirected until then")
        reason = "start"
        while not self._stopping.is_set():
            if reason and (self._exists or self._listed):
                self._list(reason)
            # A listing that has to wait for the directory keeps its reason.
            reason = "" if self._listed else reason
            ready = poller.poll()
            received_at = time.monotonic()
            if any(descriptor == wake for descriptor, _ in ready):
                os.eventfd_read(wake)
            batch = self._sort_out(inotify.read(timeout=0))
            for name, change in self._links.read():
                self._sort_out_link(name, change, batch)
            if batch.rewatch:
                batch.rescan |= self._rewatch(inotify)
            if batch.overflow:
                self._being_written.clear()
                self._rewatch(inotify)
                reason = reason or "overflow"
            if self._relist_asked.is_set():
                self._relist_asked.clear()
                reason = reason or "requested"
            if not reason:
                self._follow(batch, received_at)

    # --- watches ---------------------------------------------------------------------------------------------------

    def _rewatch(self, inotify: INotify) -> bool:
        """Watches the directory and all its ancestors, as far as they exist; whether it is another directory now.

        From the top down, each before the next is looked at, so that nothing comes into being unseen.
        """
        before = set(self._ancestors) | ({self._watch} if self._watch is not None else set())
        ancestors: dict[int, set[str]] = {}
        path = Path(self._directory.anchor)
        for name in self._directory.parts[1:]:
            # An ancestor that may not be read can't be watched; the directory itself must be.
            with contextlib.suppress(PermissionError):
                watch = _add_watch(inotify, path, _ANCESTOR_MASK)
                if watch is None:
                    break
                ancestors.setdefault(watch, set()).add(name)
            path = path / name
        watch = _add_watch(inotify, self._directory, _DIRECTORY_MASK)
        changed = watch != self._watch
        for unused in before - set(ancestors) - {watch}:
            try:
                inotify.rm_watch(unused)
            except OSError as error:
                if error.errno != errno.EINVAL:  # what was watched is gone, and the watch with it
                    raise
        if self._listed and self._exists and watch is None:
            self._warn_of_files("%s is gone, and its objects with it; waiting for it")
        self._ancestors, self._watch, self._exists = ancestors, watch, watch is not None
        if changed:
            self._being_written.clear()
        return changed

    def _sort_out(self, events: list[Event]) -> _Batch:
        batch = _Batch()
        for event in events:
            if event.mask & flags.Q_OVERFLOW:
                batch.overflow = True
            if event.name and event.name in self._ancestors.get(event.wd, ()):
                batch.rewatch = True
            if event.wd == self._watch:
                self._sort_out_file(event, batch)
        return batch

    def _sort_out_file(self, event: Event, batch: _Batch) -> None:
        name, mask = event.name, event.mask
        if mask & (flags.DELETE_SELF | flags.MOVE_SELF | flags.IGNORED | flags.UNMOUNT):
            batch.rewatch = batch.rescan = True
        elif not is_manifest(name):
            return
        elif mask & (flags.DELETE | flags.MOVED_FROM):
            self._being_written.discard(name)
            batch.ready.discard(name)
            batch.gone.add(name)
        elif mask & flags.MODIFY or (mask & flags.CREATE and will_be_closed(self._directory / name)):
            self._being_written.add(name)
            batch.ready.discard(name)
        elif mask & (flags.CLOSE_WRITE | flags.MOVED_TO):
            self._being_written.discard(name)
            batch.gone.discard(name)
            batch.ready.add(name)
        elif name not in self._being_written:
            # A link was made, or the permissions changed.
            batch.gone.discard(name)
            batch.ready.add(name)

    def _sort_out_link(self, name: str, change: Change, batch: _Batch) -> None:
        if change == Change.LOST:
            batch.overflow = True
        elif change == Change.WRITING:
            self._being_written.add(name)
            batch.ready.discard(name)
        elif change == Change.DONE or name not in self._being_written:
            self._being_written.discard(name)
            batch.ready.add(name)

    # --- files -----------------------------------------------------------------------------------------------------

    def _list(self, reason: str) -> None:
        as_of = time.monotonic()
        self._listing += 1
        self._deliver(ListingStarted(self._listing, reason))
        self._warn_duplicates(self._store.apply(self._read_all()))
        received_at = time.monotonic()
        for found in self._store.objects():
            self._deliver(Upserted(found, self._listing, received_at))
        self._deliver(ListingEnded(self._listing, as_of))
        self._deliver(Heard(received_at))
        self._listed = True

    def _follow(self, batch: _Batch, received_at: float) -> None:
        changes: Changes = {}
        if batch.rescan:
            changes = self._read_all()
        else:
            for name in batch.gone:
                self._forget(name, changes)
            for name in sorted(batch.ready):
                self._read_into(changes, name)
        if not changes:
            return
        delta = self._store.apply(changes)
        self._warn_duplicates(delta)
        # New ones first: a backend that moves must not leave a gap.
        for found in delta.upserted:
            self._deliver(Upserted(found, self._listing, received_at))
        for kind, key in delta.removed:
            self._deliver(Removed(kind, key, received_at))
        self._deliver(Heard(received_at))

    def _read_all(self) -> Changes:
        """Every file there is, but for those that are being written, and the files that are there no longer."""
        changes: Changes = {}
        names: set[str] = set()
        if self._exists:
            # When it is gone meanwhile, an event says so.
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                names = {name for name in os.listdir(self._directory) if is_manifest(name)}
        for name in (self._store.files | self._reported.keys() | self._links.followed) - names:
            self._forget(name, changes)
        for name in sorted(names - self._being_written):
            self._read_into(changes, name)
        return changes

    def _forget(self, name: str, changes: Changes) -> None:
        self._links.follow(name)  # a link whose target is gone may get another one
        self._reported.pop(name, None)
        changes[name] = None

    def _read_into(self, changes: Changes, name: str) -> None:
        """The file's present content; nothing when it can't be read, so that its last good content stays."""
        path = self._directory / name
        self._links.follow(name)
        try:
            data = read_file(path)
            # One of several sources on a directory reads every file; the others none that is nothing to them, and was
            # nothing before: what does not parse keeps its last good content.
            if not (self._reports_files or self._store.holds(name) or may_hold(data, self._kinds)):
                changes[name] = {}
                self._warn(name, [])
                return
            manifest = read_manifest(
                data,
                is_json=name.endswith(".json"),
                kinds=self._kinds,
                node_name=self._node_name,
                redirect=self._redirect,
            )
        except FileNotFoundError:
            self._forget(name, changes)
            return
        except (FileFault, OSError) as error:
            if self._reports_files:
                kept = "its last good content stays" if name in self._store.files else "it has no good content yet"
                text = error.strerror if isinstance(error, OSError) else error
                self._warn(name, [f"{text}; {kept}"])
            return
        changes[name] = manifest.objects
        self._warn(name, [*(manifest.document_faults if self._reports_files else ()), *manifest.object_faults])

    # --- warnings --------------------------------------------------------------------------------------------------

    def _warn_of_files(self, text: str) -> None:
        """Of several sources on one directory, one speaks of the directory itself."""
        _log.log(logging.WARNING if self._reports_files else logging.DEBUG, text, self._directory)

    def _warn(self, name: str, warnings: list[str]) -> None:
        """Each once, until it is gone from the file and comes again."""
        known = self._reported.pop(name, frozenset())
        if warnings:
            self._reported[name] = frozenset(warnings)
        for warning in warnings:
            if warning not in known:
                _log.warning("%s: %s", ascii(str(self._directory / name))[1:-1], warning)

    def _warn_duplicates(self, delta: Delta) -> None:
        for duplicate in delta.duplicates:
            _log.warning(
                "%s is in both %s and %s of %s; the one in %s counts",
                identity_text(duplicate.name),
                duplicate.counts,
                duplicate.ignored,
                self._directory,
                duplicate.counts,
            )


def read_file(path: Path) -> bytes:
    """Raises FileFault for what is no regular file, else OSError; never waits, as opening a FIFO would."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileFault("is no regular file")
        with open(descriptor, "rb", closefd=False) as file:
            # One byte more than is taken, so that a larger file is known as one.
            return file.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)


def _add_watch(inotify: INotify, path: Path, mask: int) -> int | None:
    """None when there is no such directory."""
    try:
        return int(inotify.add_watch(path, mask))
    except (FileNotFoundError, NotADirectoryError):
        return None
