"""What the three watchers share: a source read in a thread of their own, and its events told on as facts.

In: SourceDelivered (own reader thread), ResyncSource (ConflictResolver, MapWriter), LeaseProbe (QosTicker). Out: facts
(ConflictResolver), SourceSynced (ConflictResolver, StatusReporter), LeaseProbe (ConflictResolver), SourceHeard
(StatusReporter, MetricsExporter).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias

import pykka

from actors.framework.actor import AgentActor, OwnedThread
from actors.framework.messages import Message
from actors.messages.facts import SourceDelivered, SourceName, SourceSynced
from actors.messages.reports import SourceHeard
from actors.messages.subscriptions import ResyncSource
from actors.messages.upkeep import LeaseProbe
from config.domain.addresses import Address
from k8s.sources.source import (
    Deliver,
    Heard,
    ListingEnded,
    ListingStarted,
    Removed,
    Source,
    SourceEvent,
    Upserted,
    Wanted,
)

SourceFactory: TypeAlias = Callable[[Deliver], Source]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where each watcher's objects come from."""

    policies: SourceFactory
    services: SourceFactory
    endpoints: SourceFactory
    servers: frozenset[tuple[Address, int]] | None = None
    """Addresses and ports of the API server that they come from; None for a directory."""


class Watcher(AgentActor):
    """Subclasses name their source and turn its objects into facts."""

    SOURCE: ClassVar[SourceName]
    HANDLERS: ClassVar[Mapping[type[Message], str]] = {
        SourceDelivered: "_on_source_delivered",
        ResyncSource: "_on_resync_source",
        LeaseProbe: "_on_lease_probe",
    }

    def __init__(self, *, source: SourceFactory) -> None:
        super().__init__()
        self.source = source(self._deliver)
        self._listing = 0
        """Of the listing that runs or ended last. Our own, so that it grows across a restart of this actor."""
        self._ended = 0
        """The newest listing that ended; 0 is none."""
        self._revision = 0
        """Of the resolver's newest wish; 0 before the first."""
        self._answered: int | None = 0
        """Newest wish that the source covers; None: it delivers whatever there is."""
        self._as_of = 0.0
        """Of the newest listing that ended."""
        self._heard = Heard(None)
        """As the source told last."""

    def started(self) -> None:
        self.own(OwnedThread(self, f"{self.name}-source", self.source.run, self.source.stop))

    def tell_upserted(self, event: Upserted) -> None:
        raise NotImplementedError

    def tell_removed(self, event: Removed) -> None:
        raise NotImplementedError

    def forget_older(self, listing: int) -> None:
        """A listing ended: what was seen only under older listings is gone."""

    def wish(self, wanted: frozenset[Wanted], revision: int) -> None:
        """What the resolver wants of the source from now on; SourceSynced says when that is covered."""
        self._revision = revision
        self.source.subscribe(wanted, revision)
        if self._answered is None:
            self._tell_synced()

    def _tell_synced(self) -> None:
        covered = self._answered is None or self._answered >= self._revision
        if self._ended and covered:
            synced = SourceSynced(source=self.SOURCE, listing=self._ended, revision=self._revision, as_of=self._as_of)
            for peer in ("ConflictResolver", "StatusReporter"):
                self.send(peer, synced)

    def _deliver(self, event: SourceEvent) -> None:
        """In the reader's thread."""
        try:
            self.actor_ref.tell(SourceDelivered(event=event))
        except pykka.ActorDeadError:  # we are stopping, and so will the reader
            return

    def _on_source_delivered(self, message: SourceDelivered) -> None:
        event = message.event
        if isinstance(event, ListingStarted):
            self._listing = time.monotonic_ns()
            self._tell_heard(event.reason)
        elif isinstance(event, Upserted):
            self.tell_upserted(replace(event, listing=self._listing))
        elif isinstance(event, Removed):
            self.tell_removed(event)
        elif isinstance(event, Heard):
            self._heard = event
            self._tell_heard(event.relist_reason)
        elif isinstance(event, ListingEnded):
            self._ended, self._answered, self._as_of = self._listing, event.revision, event.as_of
            self.forget_older(self._listing)
            self._tell_synced()

    def _tell_heard(self, relist_reason: str) -> None:
        heard = self._heard
        message = SourceHeard(
            source=self.SOURCE, heard_at=heard.heard_at, trouble=heard.trouble, relist_reason=relist_reason
        )
        for peer in ("StatusReporter", "MetricsExporter"):
            self.send(peer, message)

    def _on_resync_source(self, message: ResyncSource) -> None:
        self.source.relist(message.since)

    def _on_lease_probe(self, message: LeaseProbe) -> None:
        self.send("ConflictResolver", replace(message, passed_by=self.SOURCE))
        self._tell_heard("")  # for a reporter that was restarted
