"""Which objects the files of a directory hold, and which objects change when files change. Pure state.

If two files hold the same object, the one in the first file by name counts; the other takes over when the first goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from k8s.objects.identity import Identity
from k8s.objects.model import KubeObject
from k8s.sources.object_change import ObjectChange


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """The same object in two files."""

    object_id: Identity
    counts: str
    """The file whose object counts."""
    ignored: str


@dataclass(slots=True)
class ManifestStore:
    _files: dict[str, Mapping[Identity, KubeObject]] = field(default_factory=dict)
    _holders: dict[Identity, set[str]] = field(default_factory=dict)
    """Object -> the files that hold it."""
    _duplicates: dict[Identity, list[Duplicate]] = field(default_factory=dict)

    @property
    def files(self) -> frozenset[str]:
        return frozenset(self._files)

    def holds(self, file: str) -> bool:
        """Whether the file holds any object."""
        return bool(self._files.get(file))

    def objects(self) -> list[KubeObject]:
        """All objects, each as the file that counts has it."""
        return [self._files[min(holders)][object_id] for object_id, holders in self._holders.items()]

    def apply(
        self, changes: Mapping[str, Mapping[Identity, KubeObject] | None]
    ) -> tuple[ObjectChange, tuple[Duplicate, ...]]:
        """Takes new contents of files; None for a file that is gone. All changes are compared as one: an object that
        moved from one file to another has not changed. Returns also the objects that are in two files now, and were not
        before."""
        touched: dict[Identity, KubeObject | None] = {}
        for file, contents in changes.items():
            for object_id in {**self._files.get(file, {}), **(contents or {})}:
                touched.setdefault(object_id, self._winner(object_id))
        for file, contents in changes.items():
            self._replace(file, contents)
        upserted, removed, duplicates = [], [], []
        for object_id, before in touched.items():
            after = self._winner(object_id)
            if after is None:
                if before is not None:
                    removed.append(object_id)
            elif after != before:
                upserted.append(after)
            duplicates.extend(self._new_duplicates(object_id))
        return ObjectChange(upserted=tuple(upserted), removed=tuple(removed)), tuple(duplicates)

    def _winner(self, object_id: Identity) -> KubeObject | None:
        holders = self._holders.get(object_id)
        return self._files[min(holders)][object_id] if holders else None

    def _replace(self, file: str, contents: Mapping[Identity, KubeObject] | None) -> None:
        for object_id in self._files.pop(file, {}):
            self._holders[object_id].discard(file)
            if not self._holders[object_id]:
                del self._holders[object_id]
        if contents is not None:
            self._files[file] = contents
            for object_id in contents:
                self._holders.setdefault(object_id, set()).add(file)

    def _new_duplicates(self, object_id: Identity) -> list[Duplicate]:
        holders = sorted(self._holders.get(object_id, ()))
        present = [Duplicate(object_id=object_id, counts=holders[0], ignored=file) for file in holders[1:]]
        known = self._duplicates.pop(object_id, [])
        if present:
            self._duplicates[object_id] = present
        return [duplicate for duplicate in present if duplicate not in known]
