"""What the watchers are asked to report, and which part of it their sources cover. Pure, but for the clock.

A source answers a subscription with a listing that covers it (SourceSynced carries the revision). An answer to an
earlier revision, or to a resolver that ran before us, says nothing about what we ask for now.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from enum import Enum, auto
from typing import Generic, TypeVar

from actors.framework.messages import Message
from actors.messages.facts import SourceName, SourceSynced
from actors.messages.subscriptions import WatchPods, WatchServices
from config.domain.ids import NamespacedName
from k8s.objects.model import PodQuery

T = TypeVar("T", NamespacedName, PodQuery)


class Answer(Enum):
    """What a listing says about the subscription of its source."""

    COVERS = auto()
    """It covers the whole subscription, or there is no subscription for this source."""
    STALE = auto()
    """It answers a resolver that ran before us; the answer to our own request follows."""
    UNKNOWN = auto()
    """The watcher does not know our newest request, for instance after a restart, and must be asked again."""


class Subscription(Generic[T]):
    """The Services or the Pod queries for which one watcher was last asked."""

    def __init__(self) -> None:
        self.subscribed: frozenset[T] | None = None
        """None before the first request."""
        self.revision = 0
        """That of the newest request; 0 before the first. It also grows when the resolver is restarted, so that an
        answer to the resolver before us is not taken for an answer to us."""
        self.confirmed: frozenset[T] = frozenset()
        """The part that a listing of the source has covered."""

    def change(self, wanted: frozenset[T]) -> bool:
        """Returns whether the watcher must be asked."""
        if wanted is self.subscribed or wanted == self.subscribed:
            return False
        self.subscribed = wanted
        self.revision = time.monotonic_ns()
        self.confirmed &= wanted
        return True

    def answer(self, revision: int) -> Answer:
        """A listing has ended that covers the request with this revision."""
        if revision != self.revision:
            return Answer.UNKNOWN if revision < self.revision else Answer.STALE
        self.confirmed = self.subscribed or frozenset()
        return Answer.COVERS


class Subscriptions:
    """The Services that policies name; with `pods`, the Pods that they select as well."""

    def __init__(self, *, pods: bool) -> None:
        self._services = Subscription[NamespacedName]()
        self._pods = Subscription[PodQuery]() if pods else None

    def change(self, services: frozenset[NamespacedName], queries: frozenset[PodQuery]) -> Iterator[SourceName]:
        """Yields the sources whose watchers must be asked."""
        if self._services.change(services):
            yield SourceName.SERVICES
        if self._pods is not None and self._pods.change(queries):
            yield SourceName.ENDPOINTS

    def request(self, source: SourceName) -> tuple[str, Message] | None:
        """Returns the watcher of this source and the message for it; None when there is nothing to ask for yet."""
        services, pods = self._services, self._pods
        if source == SourceName.SERVICES and services.subscribed is not None:
            return "ServiceWatcher", WatchServices(names=services.subscribed, revision=services.revision)
        if source == SourceName.ENDPOINTS and pods is not None and pods.subscribed is not None:
            return "EndpointWatcher", WatchPods(queries=pods.subscribed, revision=pods.revision)
        return None

    def answer(self, synced: SourceSynced) -> Answer:
        subscription = self._of(synced.source)
        return Answer.COVERS if subscription is None else subscription.answer(synced.revision)

    def is_requested(self, source: SourceName) -> bool:
        """Whether a listing of this source can cover what the policies need, as asked for or delivered anyway."""
        subscription = self._of(source)
        return subscription is None or subscription.revision > 0

    def is_unsubscribed(self, service: NamespacedName) -> bool:
        """Whether no policy names this Service. Its facts must be ignored: the watcher sent them before it received the
        newest request, and will not report the removal."""
        return self._services.subscribed is not None and service not in self._services.subscribed

    def confirms(self, service: NamespacedName | None, queries: frozenset[PodQuery]) -> bool:
        """Whether the sources have covered all of these."""
        pods = self._pods.confirmed if self._pods is not None else frozenset()
        return (service is None or service in self._services.confirmed) and queries <= pods

    def _of(self, source: SourceName) -> Subscription[NamespacedName] | Subscription[PodQuery] | None:
        if source == SourceName.SERVICES:
            return self._services
        return self._pods if source == SourceName.ENDPOINTS else None
