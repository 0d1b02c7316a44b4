"""ServiceWatcher: reports the Services that policies name, and no others, to ConflictResolver.

It receives one more message than the other watchers: WatchServices (ConflictResolver).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import ClassVar

from actors.framework.messages import Message
from actors.messages.facts import ServiceRemoved, ServiceUpserted, SourceName
from actors.messages.subscriptions import WatchServices
from actors.watching.sources import SourceFactory
from actors.watching.watcher import Watcher
from config.domain.ids import NamespacedName
from k8s.objects.model import Service
from k8s.sources.source import Removed, Upserted


class ServiceWatcher(Watcher):
    SOURCE: ClassVar[SourceName] = SourceName.SERVICES
    HANDLERS: ClassVar[Mapping[type[Message], str]] = {**Watcher.HANDLERS, WatchServices: "_on_watch_services"}

    def __init__(self, *, source: SourceFactory) -> None:
        super().__init__(source=source)
        self._known: dict[NamespacedName, tuple[Service, int]] = {}
        """Every Service of the source, subscribed or not -> its last state, and the listing under which it was seen."""
        self._subscribed: frozenset[NamespacedName] = frozenset()

    def report_upserted(self, event: Upserted, listing: int) -> None:
        if isinstance(event.object, Service):
            self._known[event.object.key] = event.object, listing
            if event.object.key in self._subscribed:
                self._report(event.object, listing, event.received_at)

    def report_removed(self, event: Removed) -> None:
        if not isinstance(event.key, NamespacedName) or event.key not in self._known:
            return
        del self._known[event.key]
        if event.key in self._subscribed:
            self.send("ConflictResolver", ServiceRemoved(key=event.key, received_at=event.received_at))

    def forget_older(self, listing: int) -> None:
        self._known = {key: known for key, known in self._known.items() if known[1] >= listing}

    def _on_watch_services(self, message: WatchServices) -> None:
        """Reports every Service of the subscription, not only the new ones, since the resolver may have been restarted
        and know nothing."""
        self._subscribed = message.names
        for key in message.names & self._known.keys():
            self._report(*self._known[key], time.monotonic())
        self.subscribe(frozenset(message.names), message.revision)

    def _report(self, service: Service, listing: int, received_at: float) -> None:
        self.send("ConflictResolver", ServiceUpserted(service=service, listing=listing, received_at=received_at))
