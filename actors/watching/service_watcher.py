"""ServiceWatcher: owns what is known of the Services that policies name; tells ConflictResolver of those alone.

In, beside what every watcher hears: WatchServices (ConflictResolver).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import ClassVar

from actors.framework.messages import Message
from actors.messages.facts import ServiceRemoved, ServiceUpserted, SourceName
from actors.messages.subscriptions import WatchServices
from actors.watching.watcher import SourceFactory, Watcher
from config.domain.ids import NamespacedName
from k8s.objects.model import Service
from k8s.sources.source import Removed, Upserted


class ServiceWatcher(Watcher):
    SOURCE: ClassVar[SourceName] = SourceName.SERVICES
    HANDLERS: ClassVar[Mapping[type[Message], str]] = {**Watcher.HANDLERS, WatchServices: "_on_watch_services"}

    def __init__(self, *, source: SourceFactory) -> None:
        super().__init__(source=source)
        self._known: dict[NamespacedName, tuple[Service, int]] = {}
        """Every Service of the source, wanted or not -> its last state and the listing that it was seen under."""
        self._wanted: frozenset[NamespacedName] = frozenset()

    def tell_upserted(self, event: Upserted) -> None:
        if isinstance(event.object, Service):
            self._known[event.object.key] = event.object, event.listing
            if event.object.key in self._wanted:
                self._tell(event.object, event.listing, event.received_at)

    def tell_removed(self, event: Removed) -> None:
        if not isinstance(event.key, NamespacedName) or event.key not in self._known:
            return
        del self._known[event.key]
        if event.key in self._wanted:
            self.send("ConflictResolver", ServiceRemoved(key=event.key, received_at=event.received_at))

    def forget_older(self, listing: int) -> None:
        self._known = {key: known for key, known in self._known.items() if known[1] >= listing}

    def _on_watch_services(self, message: WatchServices) -> None:
        """Tells all that are wanted, not the newly wanted alone: the resolver may have lost what it knew."""
        self._wanted = message.names
        for key in message.names & self._known.keys():
            self._tell(*self._known[key], time.monotonic())
        self.wish(frozenset(message.names), message.revision)

    def _tell(self, service: Service, listing: int, received_at: float) -> None:
        self.send("ConflictResolver", ServiceUpserted(service=service, listing=listing, received_at=received_at))
