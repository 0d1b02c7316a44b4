"""The objects that a source holds from several list-watches, and what an event of one of them changes. Pure state.

One object may come from several list-watches (two Pod queries may both match it). It exists as long as any of them has
it, in the state that arrived last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from k8s.api.resource import Resource
from k8s.objects.identity import Identity, identity
from k8s.objects.model import KubeObject
from k8s.sources.object_change import ObjectChange


@dataclass(slots=True)
class ObjectCache:
    _held: dict[Resource, dict[Identity, KubeObject]] = field(default_factory=dict)
    """List-watch -> its objects, for each list-watch that has delivered a list."""
    _current: dict[Identity, KubeObject] = field(default_factory=dict)
    """Objects in the state in which they were delivered."""

    def objects(self) -> Iterator[KubeObject]:
        return iter(self._current.values())

    def listed(self) -> frozenset[Resource]:
        return frozenset(self._held)

    def list(self, resource: Resource, objects: Iterable[KubeObject]) -> ObjectChange:
        """Replaces everything that came from `resource`."""
        found = {identity(each): each for each in objects}
        gone = self._held.get(resource, {}).keys() - found.keys()
        self._held[resource] = found
        return ObjectChange(upserted=tuple(self._update(found)), removed=tuple(self._remove(gone)))

    def change(self, resource: Resource, found: KubeObject) -> ObjectChange:
        self._held[resource][identity(found)] = found
        return ObjectChange(upserted=tuple(self._update({identity(found): found})))

    def delete(self, resource: Resource, object_id: Identity) -> ObjectChange:
        self._held[resource].pop(object_id, None)
        return ObjectChange(removed=tuple(self._remove([object_id])))

    def forget(self, resource: Resource) -> ObjectChange:
        """Drops what only this list-watch has, because it is no longer needed."""
        return ObjectChange(removed=tuple(self._remove(self._held.pop(resource, {}))))

    def _update(self, found: Mapping[Identity, KubeObject]) -> Iterator[KubeObject]:
        for object_id, each in found.items():
            if self._current.get(object_id) != each:
                self._current[object_id] = each
                yield each

    def _remove(self, object_ids: Iterable[Identity]) -> Iterator[Identity]:
        for object_id in list(object_ids):
            if object_id in self._current and not any(object_id in held for held in self._held.values()):
                del self._current[object_id]
                yield object_id
