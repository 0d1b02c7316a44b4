"""The manifest files of a directory: reads them as they change, and keeps what each one held when it was last readable.

It warns once of each fault. Several sources may read one directory, each for its kinds. Each reports the faults of the
objects that it delivers. Only one of them reports the faults of the file itself. Which one depends on the kinds in the
file, so that a source need not parse a file only to report its faults.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from config.input.parsing import MAX_BYTES, FileFault
from config.settings import RedirectSettings
from k8s.objects.identity import Identity, identity_text
from k8s.objects.manifests import may_hold, read_manifest
from k8s.objects.model import KubeObject
from k8s.sources.links import LinkWatcher
from k8s.sources.object_change import ObjectChange
from k8s.sources.store import ManifestStore

_log = logging.getLogger(__name__)

_SUFFIXES = (".yaml", ".yml", ".json")
_PART_BYTES = 64 << 10
_Changes: TypeAlias = dict[str, Mapping[Identity, KubeObject] | None]
"""File -> what it holds now; None when it is gone."""


def is_manifest(name: str) -> bool:
    return name.endswith(_SUFFIXES) and not name.startswith(".")


def is_json(name: str) -> bool:
    """Whether a file of this name holds JSON; otherwise it holds YAML."""
    return name.endswith(".json")


def why_unreadable(error: FileFault | OSError) -> str:
    """Without the file's name, which an OSError has in its text."""
    return str(error.strerror if isinstance(error, OSError) else error)


class ManifestFiles:
    """For one thread."""

    def __init__(
        self,
        directory: Path,
        links: LinkWatcher,
        *,
        kinds: frozenset[str],
        node_name: str,
        redirect: RedirectSettings,
        reports_files: bool,
        reported_elsewhere: frozenset[str],
    ) -> None:
        self._directory = directory
        self._links = links
        self._kinds = kinds
        self._node_name = node_name
        self._redirect = redirect
        self._reports_files = reports_files
        self._reported_elsewhere = reported_elsewhere
        self._store = ManifestStore()
        self._warnings: dict[str, frozenset[str]] = {}
        """File -> the warnings about its present content."""

    def objects(self) -> list[KubeObject]:
        return self._store.objects()

    def update(self, *, gone: Iterable[str], ready: Iterable[str]) -> ObjectChange:
        """Reads the files that are `ready`."""
        changes: _Changes = {}
        for name in gone:
            self._forget(name, changes)
        for name in sorted(ready):
            self._read(name, changes)
        return self._apply(changes)

    def update_all(self, names: set[str], *, being_written: set[str]) -> ObjectChange:
        """Reads all files of the directory, except those that are being written; all others than `names` are gone."""
        changes: _Changes = {}
        for name in (self._store.files | self._warnings.keys() | self._links.followed) - names:
            self._forget(name, changes)
        for name in sorted(names - being_written):
            self._read(name, changes)
        return self._apply(changes)

    def _apply(self, changes: _Changes) -> ObjectChange:
        change, duplicates = self._store.apply(changes)
        for duplicate in duplicates:
            _log.warning(
                "%s is in both %s and %s of %s; the one in %s counts",
                identity_text(duplicate.object_id),
                duplicate.counts,
                duplicate.ignored,
                self._directory,
                duplicate.counts,
            )
        return change

    def _forget(self, name: str, changes: _Changes) -> None:
        self._links.follow(name)  # the file may be a link whose target is gone, and may come back
        self._warnings.pop(name, None)
        changes[name] = None

    def _read(self, name: str, changes: _Changes) -> None:
        """Adds the file's content; adds nothing if the file can't be read, so that its last good content stays."""
        self._links.follow(name)
        reports = self._reports_files
        try:
            data = read_file(self._directory / name)
            holds_ours = may_hold(data, self._kinds)
            reports = (self._reports_files or holds_ours) and not may_hold(data, self._reported_elsewhere)
            # A file that holds none of our kinds need not be parsed, except to report its faults. If it held some of
            # them before, it is parsed nevertheless: if that fails, its last good content must stay.
            if not (reports or holds_ours or self._store.holds(name)):
                changes[name] = {}
                self._warn(name, [])
                return
            manifest = read_manifest(
                data,
                is_json=is_json(name),
                kinds=self._kinds,
                node_name=self._node_name,
                redirect=self._redirect,
            )
        except FileNotFoundError:
            self._forget(name, changes)
            return
        except (FileFault, OSError) as error:
            kept = "its last good content stays" if name in self._store.files else "it has no good content yet"
            self._warn(name, [f"{why_unreadable(error)}; {kept}"] if reports else [])
            return
        changes[name] = manifest.objects
        self._warn(name, [*(manifest.document_faults if reports else ()), *manifest.object_faults])

    def _warn(self, name: str, warnings: list[str]) -> None:
        """Logs each warning once, until it is gone from the file and comes back."""
        known = self._warnings.pop(name, frozenset())
        if warnings:
            self._warnings[name] = frozenset(warnings)
        for warning in warnings:
            if warning not in known:
                _log.warning("%s: %s", ascii(str(self._directory / name))[1:-1], warning)


def read_file(path: Path) -> bytes:
    """Raises FileFault if it is not a regular file, and OSError. Never blocks, as opening a FIFO would."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileFault("is not a regular file")
        # In small parts, since one read of MAX_BYTES allocates a buffer of that size, which takes longer than all the
        # rest. A file that is too large is read only until that is certain.
        data = bytearray()
        while len(data) <= MAX_BYTES and (part := os.read(descriptor, _PART_BYTES)):
            data += part
        return bytes(data)
    finally:
        os.close(descriptor)
