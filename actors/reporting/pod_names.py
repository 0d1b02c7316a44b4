"""Names of this node's Pods by the identifiers that are in the names of their cgroups. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from config.domain.ids import NamespacedName
from k8s.objects.model import Pod


class PodNames:
    """Only one thread may change it. Other threads may look up single keys of `by_uid` meanwhile."""

    def __init__(self) -> None:
        self._by_uid: dict[str, NamespacedName] = {}
        self._pods: dict[NamespacedName, tuple[int, frozenset[str]]] = {}
        """Pod -> the listing under which it was last reported, and its keys in `_by_uid`."""

    @property
    def by_uid(self) -> Mapping[str, NamespacedName]:
        """Uid, and a static Pod's config hash -> Pod."""
        return self._by_uid

    def upserted(self, pod: Pod, listing: int) -> None:
        uids = frozenset(filter(None, (pod.uid, pod.config_hash)))
        _, former = self._pods.get(pod.key, (0, frozenset()))
        self._pods[pod.key] = listing, uids
        self._by_uid |= dict.fromkeys(uids, pod.key)
        for uid in former - uids:  # of an earlier Pod of the same name
            del self._by_uid[uid]

    def removed(self, key: NamespacedName) -> None:
        _, uids = self._pods.pop(key, (0, frozenset()))
        for uid in uids:
            del self._by_uid[uid]

    def synced(self, listing: int) -> None:
        """Pods that were reported only under older listings no longer exist."""
        for key in [key for key, (reported, _) in self._pods.items() if reported < listing]:
            self.removed(key)
