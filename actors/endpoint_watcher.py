"""EndpointWatcher: owns what is known of this node's Pods, and of its own Node's labels; tells ConflictResolver."""

from __future__ import annotations

from typing import ClassVar

from actors.messages import NodeRemoved, NodeUpserted, PodRemoved, PodUpserted, SourceName
from actors.watcher import Watcher
from k8s.objects import NamespacedName, Node, Pod
from k8s.source import Removed, Upserted


class EndpointWatcher(Watcher):
    SOURCE: ClassVar[SourceName] = SourceName.ENDPOINTS

    def tell_upserted(self, event: Upserted) -> None:
        if isinstance(event.object, Pod):
            self.send(
                "ConflictResolver",
                PodUpserted(pod=event.object, generation=event.generation, received_at=event.received_at),
            )
        elif isinstance(event.object, Node):
            self.send(
                "ConflictResolver",
                NodeUpserted(node=event.object, generation=event.generation, received_at=event.received_at),
            )

    def tell_removed(self, event: Removed) -> None:
        if isinstance(event.key, NamespacedName):
            self.send("ConflictResolver", PodRemoved(key=event.key, received_at=event.received_at))
        elif isinstance(event.key, str):
            self.send("ConflictResolver", NodeRemoved(name=event.key, received_at=event.received_at))
