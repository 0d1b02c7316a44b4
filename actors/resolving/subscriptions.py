"""What the watchers are asked to report, and which part of it their sources cover. Pure, but for the clock.

A source answers a subscription with a listing that covers it (SourceSynced carries the revision). An answer to an
earlier revision, or to a resolver that ran before us, says nothing about what we ask for now.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from enum import Enum, auto
from typing import Any, Generic, TypeVar

from actors.framework.messages import Message
from actors.messages.facts import SourceName, SourceSynced
from actors.messages.subscriptions import WatchServices
from actors.resolving.facts import Facts
from config.domain.ids import NamespacedName
from k8s.objects.model import PodQuery, Policy

T = TypeVar("T", NamespacedName, PodQuery)


class Coverage(Enum):
    """What a listing covers of the subscription of its source."""

    WHOLE = auto()
    """The whole subscription, or there is no subscription for this source."""
    STALE = auto()
    """Nothing, since it answers a resolver that ran before us; the answer to our own request follows."""
    UNKNOWN = auto()
    """That is not known: the watcher does not know our newest request, for instance after a restart, and must be asked
    again."""


class Subscription(Generic[T]):
    """The Services or the Pod queries for which one watcher was last asked."""

    def __init__(self) -> None:
        self.subscribed: frozenset[T] | None = None
        """None before the first request."""
        self.revision = 0
        """The newest request has this number; 0 means that there was no request. A restarted resolver has higher
        numbers than the resolver before it, so it does not take an answer to that one for an answer to its own
        request."""
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

    def answer(self, revision: int) -> Coverage:
        """A listing has ended that covers the request with this revision."""
        if revision != self.revision:
            return Coverage.UNKNOWN if revision < self.revision else Coverage.STALE
        self.confirmed = self.subscribed or frozenset()
        return Coverage.WHOLE


class Subscriptions:
    """The agent's: it asks for the Services that policies name. Its source delivers this node's Pods unasked.

    In the controller: `actors.controller.cluster_subscriptions`.
    """

    def __init__(self) -> None:
        self._services = Subscription[NamespacedName]()

    def change(self, facts: Facts) -> Iterator[SourceName]:
        """Yields the sources whose watchers must be asked."""
        if self._services.change(facts.named_services):
            yield SourceName.SERVICES

    def request(self, source: SourceName) -> tuple[str, Message] | None:
        """Returns the watcher of this source and the message for it; None when there is nothing to ask for yet."""
        services = self._services
        if source == SourceName.SERVICES and services.subscribed is not None:
            return "ServiceWatcher", WatchServices(names=services.subscribed, revision=services.revision)
        return None

    def answer(self, synced: SourceSynced) -> Coverage:
        subscription = self._of(synced.source)
        return Coverage.WHOLE if subscription is None else subscription.answer(synced.revision)

    def is_requested(self, source: SourceName) -> bool:
        """Whether a listing of this source can cover what the policies need, as asked for or delivered unasked."""
        subscription = self._of(source)
        return subscription is None or subscription.revision > 0

    def is_unsubscribed(self, service: NamespacedName) -> bool:
        """Whether no policy names this Service. Its facts must be ignored: the watcher sent them before it received the
        newest request, and will not report the removal."""
        return self._services.subscribed is not None and service not in self._services.subscribed

    def is_known(self, _policy: Policy) -> bool:
        """Whether the policy can be decided. An agent waits for nothing: a subscription is confirmed as a whole, so a
        policy would wait until the Services of other policies are listed, too."""
        return True

    def _of(self, source: SourceName) -> Subscription[Any] | None:
        """None for a source that is not asked for anything."""
        return self._services if source == SourceName.SERVICES else None
