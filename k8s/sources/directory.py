"""DirectorySource: manifests in a directory as a source of objects, watched by inotify.

It runs in its watcher's thread and delivers the events of `k8s.sources.source`. `k8s.sources.directory_watcher` says
which files changed, `k8s.sources.manifest_files` what they hold.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from pathlib import Path

from config.settings import RedirectSettings
from k8s.sources.directory_watcher import DirectoryWatcher, FileEvents
from k8s.sources.links import LinkWatcher
from k8s.sources.manifest_files import ManifestFiles
from k8s.sources.object_change import ObjectChange, deliver_change
from k8s.sources.source import HEARD_SECONDS, Deliver, Heard, ListingEnded, ListingStarted, Topic, Upserted

_log = logging.getLogger(__name__)


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
        reports_files: bool = True,
        reported_elsewhere: frozenset[str] = frozenset(),
    ) -> None:
        """Several sources may read one directory. A source reports the faults of a file that may hold its `kinds` and
        none of the kinds in `reported_elsewhere`, whose sources report it. The source with `reports_files` also reports
        the faults of the directory, and of files that hold no kind of any source."""
        self._directory = Path(os.path.abspath(directory))
        self._deliver = deliver
        self._reports_files = reports_files
        self._links = LinkWatcher(self._directory)
        self._directory_watcher = DirectoryWatcher(self._directory, self._links)
        self._files = ManifestFiles(
            self._directory,
            self._links,
            kinds=kinds,
            node_name=node_name,
            redirect=redirect,
            reports_files=reports_files,
            reported_elsewhere=reported_elsewhere,
        )
        self._has_listed = False
        self._heard_at = 0.0
        """time.monotonic() in the last Heard."""
        self._stopping = threading.Event()
        self._relist_asked = threading.Event()
        # Guards only the descriptor: `stop` may be called after `run` has closed it.
        self._wake_lock = threading.Lock()
        self._wake: int | None = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def stop(self) -> None:
        self._stopping.set()
        self._wake_up()

    def relist(self, since: float = 0.0) -> None:
        """Reads every file again, so the listing is always newer than `since`."""
        del since
        self._relist_asked.set()
        self._wake_up()

    def subscribe(self, topics: frozenset[Topic], revision: int) -> None:
        """Does nothing: every object of the directory is delivered anyway."""

    def _wake_up(self) -> None:
        with self._wake_lock:
            if self._wake is not None:
                os.eventfd_write(self._wake, 1)

    def run(self) -> None:
        wake = self._wake
        if wake is None:
            raise RuntimeError("a source can run only once")
        try:
            self._run(wake)
        finally:
            self._directory_watcher.close()
            self._links.close()
            with self._wake_lock:
                self._wake = None
                os.close(wake)

    def _run(self, wake: int) -> None:
        poller = select.poll()
        for descriptor in (wake, self._directory_watcher.fileno(), self._links.fileno()):
            poller.register(descriptor, select.POLLIN)
        self._directory_watcher.rewatch()
        if not self._directory_watcher.exists:
            self._warn("%s does not exist; nothing is redirected until it does")
        reason = "start"
        while not self._stopping.is_set():
            if reason and (self._directory_watcher.exists or self._has_listed):
                self._list(reason)
            # The first listing has to wait until the directory exists, and keeps its reason.
            reason = "" if self._has_listed else reason
            ready = poller.poll()
            received_at = time.monotonic()
            if any(descriptor == wake for descriptor, _ in ready):
                os.eventfd_read(wake)
            existed = self._directory_watcher.exists
            events = self._directory_watcher.read()
            if self._has_listed and existed and not self._directory_watcher.exists:
                self._warn("%s is gone, and its objects with it; waiting until it exists again")
            if events.overflow:
                reason = reason or "overflow"
            if self._relist_asked.is_set():
                self._relist_asked.clear()
                reason = reason or "requested"
            if not reason:
                self._deliver_changes(events, received_at)

    def _list(self, reason: str) -> None:
        as_of = time.monotonic()
        self._deliver(ListingStarted(reason))
        self._read_all()
        received_at = time.monotonic()
        for found in self._files.objects():
            self._deliver(Upserted(found, received_at))
        self._deliver(ListingEnded(as_of))
        self._hear(received_at)
        self._has_listed = True

    def _hear(self, received_at: float) -> None:
        self._heard_at = received_at
        self._deliver(Heard(received_at))

    def _deliver_changes(self, events: FileEvents, received_at: float) -> None:
        if events.is_other_directory:
            change = self._read_all()
        elif events.gone or events.ready:
            change = self._files.update(gone=events.gone, ready=events.ready)
        else:
            return
        deliver_change(change, received_at, self._deliver)
        # Not with each change, since three sources report to two actors each.
        if received_at - self._heard_at >= HEARD_SECONDS:
            self._hear(received_at)

    def _read_all(self) -> ObjectChange:
        return self._files.update_all(
            self._directory_watcher.manifests(), being_written=self._directory_watcher.being_written
        )

    def _warn(self, text: str) -> None:
        """Warns about the directory itself, which only one of several sources reports."""
        _log.log(logging.WARNING if self._reports_files else logging.DEBUG, text, self._directory)
