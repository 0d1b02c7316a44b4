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

    name: Identity
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
        return [self._files[min(holders)][name] for name, holders in self._holders.items()]

    def apply(
        self, changes: Mapping[str, Mapping[Identity, KubeObject] | None]
    ) -> tuple[ObjectChange, tuple[Duplicate, ...]]:
        """Takes new contents of files; None for a file that is gone. All changes are compared as one: an object that
        moved from one file to another has not changed. Returns also the objects that are in two files now, and were not
        before."""
        touched: dict[Identity, KubeObject | None] = {}
        for file, contents in changes.items():
            for name in {**self._files.get(file, {}), **(contents or {})}:
                touched.setdefault(name, self._winner(name))
        for file, contents in changes.items():
            self._replace(file, contents)
        upserted, removed, duplicates = [], [], []
        for name, before in touched.items():
            after = self._winner(name)
            if after is None:
                if before is not None:
                    removed.append(name)
            elif after != before:
                upserted.append(after)
            duplicates.extend(self._new_duplicates(name))
        return ObjectChange(upserted=tuple(upserted), removed=tuple(removed)), tuple(duplicates)

    def _winner(self, name: Identity) -> KubeObject | None:
        holders = self._holders.get(name)
        return self._files[min(holders)][name] if holders else None

    def _replace(self, file: str, contents: Mapping[Identity, KubeObject] | None) -> None:
        for name in self._files.pop(file, {}):
            self._holders[name].discard(file)
            if not self._holders[name]:
                del self._holders[name]
        if contents is not None:
            self._files[file] = contents
            for name in contents:
                self._holders.setdefault(name, set()).add(file)

    def _new_duplicates(self, name: Identity) -> list[Duplicate]:
        holders = sorted(self._holders.get(name, ()))
        present = [Duplicate(name=name, counts=holders[0], ignored=file) for file in holders[1:]]
        known = self._duplicates.pop(name, [])
        if present:
            self._duplicates[name] = present
        return [duplicate for duplicate in present if duplicate not in known]
