"""What the three watchers share: each reads its source in a thread of its own and reports the source's events as facts.

In: SourceDelivered (own source thread), ResyncSource (ConflictResolver, MapWriter, StatusWriter, DecisionRecorder),
LeaseProbe (QosTicker). Out: facts and LeaseProbe (ConflictResolver), SourceSynced (ConflictResolver, StatusReporter),
SourceHeard (StatusReporter, MetricsExporter).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from actors.framework.actor import AgentActor, OwnedThread
from actors.framework.messages import Message
from actors.messages.facts import SourceDelivered, SourceName, SourceSynced
from actors.messages.reports import REPORTERS, SourceHeard
from actors.messages.resync import ResyncSource
from actors.messages.upkeep import LeaseProbe
from actors.watching.sources import SourceFactory
from k8s.sources.source import Heard, ListingEnded, ListingStarted, Removed, SourceEvent, Topic, Upserted


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
        """Number of the listing that is running or that ended last. The watcher numbers listings by the clock, so that
        the numbers grow even when this actor is restarted."""
        self._ended_listing = 0
        """Number of the listing that ended last; 0 before the first."""
        self._as_of = 0.0
        """SourceSynced.as_of of the listing that ended last."""
        self._revision = 0
        """Revision of ConflictResolver's newest subscription; 0 before the first."""
        self._covered_revision: int | None = 0
        """Revision of the newest subscription that the source covers; None for a source that delivers everything."""
        self._heard = Heard(None)
        """The newest `Heard` that the source delivered."""
        self.synced_peers: tuple[str, ...] = ("ConflictResolver", "StatusReporter")
        """Actors to which SourceSynced is sent."""

    def started(self) -> None:
        self.own(OwnedThread(self, f"{self.name}-source", self.source.run, self.source.stop))

    def report_upserted(self, event: Upserted, listing: int) -> None:
        """`listing` is the number of the listing under which the object was delivered."""
        raise NotImplementedError

    def report_removed(self, event: Removed) -> None:
        raise NotImplementedError

    def forget_older(self, listing: int) -> None:
        """This listing ended: objects that were seen only under older listings no longer exist."""

    def subscribe(self, topics: frozenset[Topic], revision: int) -> None:
        """Asks the source to deliver exactly these from now on. SourceSynced follows when the source covers them."""
        self._revision = revision
        self.source.subscribe(topics, revision)
        if self._covered_revision is None:
            self._report_synced()

    def _report_synced(self) -> None:
        covers = self._covered_revision is None or self._covered_revision >= self._revision
        if self._ended_listing and covers:
            synced = SourceSynced(
                source=self.SOURCE, listing=self._ended_listing, revision=self._revision, as_of=self._as_of
            )
            for peer in self.synced_peers:
                self.send(peer, synced)

    def _deliver(self, event: SourceEvent) -> None:
        """Runs in the reader's thread."""
        self.tell_self(SourceDelivered(event=event))

    def _on_source_delivered(self, message: SourceDelivered) -> None:
        event = message.event
        if isinstance(event, ListingStarted):
            self._listing = time.monotonic_ns()
            self._report_heard(event.reason)
        elif isinstance(event, Upserted):
            self.report_upserted(event, self._listing)
        elif isinstance(event, Removed):
            self.report_removed(event)
        elif isinstance(event, Heard):
            self._heard = event
            self._report_heard(event.relist_reason)
        elif isinstance(event, ListingEnded):
            self._ended_listing, self._covered_revision, self._as_of = self._listing, event.revision, event.as_of
            self.forget_older(self._listing)
            self._report_synced()

    def _report_heard(self, relist_reason: str) -> None:
        heard = self._heard
        message = SourceHeard(
            source=self.SOURCE, heard_at=heard.heard_at, trouble=heard.trouble, relist_reason=relist_reason
        )
        for peer in REPORTERS:
            self.send(peer, message)

    def _on_resync_source(self, message: ResyncSource) -> None:
        self.source.relist(message.since)

    def _on_lease_probe(self, message: LeaseProbe) -> None:
        self.send("ConflictResolver", replace(message, passed_by=self.SOURCE))
        self._report_heard("")  # for a reporter that was restarted, while the source is silent
