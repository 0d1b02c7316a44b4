"""EndpointWatcher: reports the Pods of this node, and the Node itself, to ConflictResolver.

DecisionRecorder, if the agent has one, receives the facts about Pods and SourceSynced as well.

In the controller it reports all Nodes, and the Pods that policies select. There it receives one more message than the
other watchers: WatchPods (ConflictResolver).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from actors.framework.messages import Message
from actors.messages.facts import NodeRemoved, NodeUpserted, PodRemoved, PodUpserted, SourceName
from actors.messages.subscriptions import WatchPods
from actors.watching.sources import SourceFactory
from actors.watching.watcher import Watcher
from config.domain.ids import NamespacedName
from k8s.objects.model import Node, Pod
from k8s.sources.source import Removed, Upserted


class EndpointWatcher(Watcher):
    SOURCE: ClassVar[SourceName] = SourceName.ENDPOINTS
    HANDLERS: ClassVar[Mapping[type[Message], str]] = {**Watcher.HANDLERS, WatchPods: "_on_watch_pods"}

    def __init__(self, *, source: SourceFactory, has_recorder: bool = False) -> None:
        super().__init__(source=source)
        self._pod_peers: tuple[str, ...] = ("ConflictResolver",)
        if has_recorder:
            self._pod_peers = (*self._pod_peers, "DecisionRecorder")
            self.synced_peers = (*self.synced_peers, "DecisionRecorder")

    def report_upserted(self, event: Upserted, listing: int) -> None:
        if isinstance(event.object, Pod):
            self._send_pod_fact(PodUpserted(pod=event.object, listing=listing, received_at=event.received_at))
        elif isinstance(event.object, Node):
            self.send(
                "ConflictResolver",
                NodeUpserted(node=event.object, listing=listing, received_at=event.received_at),
            )

    def report_removed(self, event: Removed) -> None:
        if isinstance(event.key, NamespacedName):
            self._send_pod_fact(PodRemoved(key=event.key, received_at=event.received_at))
        elif isinstance(event.key, str):
            self.send("ConflictResolver", NodeRemoved(name=event.key, received_at=event.received_at))

    def _send_pod_fact(self, fact: PodUpserted | PodRemoved) -> None:
        for peer in self._pod_peers:
            self.send(peer, fact)

    def _on_watch_pods(self, message: WatchPods) -> None:
        """Reports no Pods, unlike ServiceWatcher: a resolver that was restarted gets them by its ResyncSource."""
        self.subscribe(frozenset(message.queries), message.revision)
