"""KubernetesSource: the API server as a source of objects (docs/architecture.md), by one list-watch a collection.

Owns its list-watches, each in a thread of its own, and what they hold; `run` takes their events one by one, in its
watcher's thread. Delivers `k8s.sources.source` events. While the API server is away, or refuses us, no object is
delivered, so nothing changes; Heard says how the source stands.

After a time in which this process did not run (`relist` with a time) its connections may be dead without a word, and
its watches with them: everything is then listed anew, over new connections, before the listing ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeAlias

from config.settings import RedirectSettings
from k8s.api.client import Api
from k8s.api.listwatch import Changed, Deleted, Failed, Listed, ListWatch, StreamEvent
from k8s.api.resource import Resource
from k8s.api.trouble import Trouble, TroubleKind
from k8s.sources.cache import Change, ObjectCache
from k8s.sources.resources import reducer, resources_for
from k8s.sources.source import NOTHING_TO_HEAR, Deliver, Heard, ListingEnded, ListingStarted, Removed, Upserted, Wanted

_JOIN_SECONDS = 1.0
_HEARD_SECONDS = 1.0
"""How exactly it is told when something was heard."""
_WORST_FIRST = (TroubleKind.REFUSED, TroubleKind.ABSENT, TroubleKind.OUTAGE)
"""A refusal stays until a person mends it."""
_MOST_MESSAGES = 3


@dataclass(frozen=True, slots=True)
class _Happened:
    """A list-watch -> the source."""

    resource: Resource
    thread: threading.Thread
    """That of the list-watch: of one that was ended, and begun anew meanwhile, events may still be on their way."""
    event: StreamEvent


@dataclass(frozen=True, slots=True)
class _Broke:
    error: Exception


@dataclass(frozen=True, slots=True)
class _WantAsked:
    wanted: frozenset[Wanted]
    revision: int


@dataclass(frozen=True, slots=True)
class _RelistAsked:
    since: float


class _StopAsked:
    pass


_Request: TypeAlias = _Happened | _Broke | _WantAsked | _RelistAsked | _StopAsked


class KubernetesSource:
    """See `k8s.sources.source.Source`. `fixed` is watched always, what `want` names beside it."""

    def __init__(self, *, api: Api, fixed: Iterable[Resource], redirect: RedirectSettings, deliver: Deliver) -> None:
        self._api = api
        self._redirect = redirect
        self._deliver = deliver
        self._requests: SimpleQueue[_Request] = SimpleQueue()
        self._fixed = frozenset(fixed)
        self._wanted: frozenset[Wanted] = frozenset()
        self._revision = 0
        """Of what is wanted; 0 before the first wish."""
        self._running: dict[Resource, tuple[ListWatch, threading.Thread]] = {}
        self._cache = ObjectCache()
        self._listing = time.monotonic_ns()
        self._answered: int | None = None
        """As ListingEnded said last; None before the first."""
        self._listed_at: dict[Resource, float] = {}
        """When the newest list of each was asked for."""
        self._since = 0.0
        """A listing must be no older than that; it is asked for, and not told yet, while `_relisting`."""
        self._relisting = False
        self._heard_at: dict[Resource, float] = {}
        self._troubles: dict[Resource, Trouble] = {}
        self._told_heard = Heard(None)

    def stop(self) -> None:
        self._requests.put(_StopAsked())

    def relist(self, since: float = 0.0) -> None:
        """From what is held, where that was listed at `since` or later: the API server is not asked, and may be away.
        Where not, the listing waits until it was asked."""
        self._requests.put(_RelistAsked(since))

    def subscribe(self, wanted: frozenset[Wanted], revision: int) -> None:
        self._requests.put(_WantAsked(wanted, revision))

    def run(self) -> None:
        try:
            self._start_and_end()
            self._end_listing()
            while True:
                request = self._requests.get()
                match request:
                    case _StopAsked():
                        return
                    case _Broke(error=error):
                        raise error
                    case _RelistAsked(since=since):
                        self._relist(since)
                    case _WantAsked(wanted=wanted, revision=revision):
                        self._wanted, self._revision = wanted, revision
                        self._start_and_end()
                        self._end_listing()
                    case _Happened(resource=resource, thread=thread, event=event):
                        if resource in self._running and self._running[resource][1] is thread:
                            self._take(resource, event)
        finally:
            self._stop_all()

    # --- list-watches ----------------------------------------------------------------------------------------------

    @property
    def _needed(self) -> frozenset[Resource]:
        return self._fixed | resources_for(self._wanted)

    def _start_and_end(self) -> None:
        """Starts what is needed. What is no longer needed ends once what takes its place is listed: no gap."""
        needed = self._needed
        for resource in needed - self._running.keys():
            listwatch = ListWatch(
                self._api,
                resource,
                reducer(resource, self._redirect),
                lambda event, resource=resource: self._requests.put(  # type: ignore[misc]
                    _Happened(resource, threading.current_thread(), event)
                ),
            )
            thread = threading.Thread(target=self._watch, args=(listwatch,), name=f"watch-{resource.kind}", daemon=True)
            self._running[resource] = listwatch, thread
            thread.start()
        if needed <= self._cache.listed():
            for resource in self._running.keys() - needed:
                self._running.pop(resource)[0].stop()
                for told in (self._listed_at, self._heard_at, self._troubles):
                    told.pop(resource, None)
                self._deliver_change(self._cache.forget(resource), time.monotonic())
            self._tell_heard()

    def _watch(self, listwatch: ListWatch) -> None:
        """In the list-watch's thread."""
        try:
            listwatch.run()
        except Exception as error:  # noqa: BLE001  (raised again by `run`: a failure of the watcher)
            self._requests.put(_Broke(error))

    def _stop_all(self) -> None:
        for listwatch, _ in self._running.values():
            listwatch.stop()
        for _, thread in self._running.values():
            thread.join(_JOIN_SECONDS)

    # --- events ----------------------------------------------------------------------------------------------------

    def _take(self, resource: Resource, event: StreamEvent) -> None:
        relist_reason = ""
        if isinstance(event, Failed):
            self._troubles[resource] = event.trouble
        else:
            self._troubles.pop(resource, None)
            self._heard_at[resource] = time.monotonic()
        match event:
            case Listed(objects=objects, reason=reason, asked_at=asked_at, received_at=received_at):
                self._listed_at[resource] = asked_at
                self._deliver_change(self._cache.list(resource, objects), received_at)
                relist_reason = "" if reason == "start" else reason
            case Changed(object=found, received_at=received_at):
                self._deliver_change(self._cache.change(resource, found), received_at)
            case Deleted(name=name, received_at=received_at):
                self._deliver_change(self._cache.delete(resource, name), received_at)
        self._tell_heard(relist_reason)
        if isinstance(event, Listed):
            self._start_and_end()
            self._end_listing()

    def _deliver_change(self, change: Change, received_at: float) -> None:
        if self._answered is None:
            return  # the first listing tells all
        # New ones first: a backend that moves must not leave a gap.
        for found in change.upserted:
            self._deliver(Upserted(found, self._listing, received_at))
        for kind, key in change.removed:
            self._deliver(Removed(kind, key, received_at))

    def _tell_heard(self, relist_reason: str = "") -> None:
        heard = Heard(self._oldest(self._heard_at), worst_trouble(self._troubles.values()), relist_reason)
        if not (relist_reason or _is_news(heard, self._told_heard)):
            return
        self._told_heard = heard
        self._deliver(heard)

    def _oldest(self, times: Mapping[Resource, float]) -> float | None:
        """Of all that is needed; None while one is missing, NOTHING_TO_HEAR when nothing is needed."""
        needed = self._needed
        return min((times[each] for each in needed), default=NOTHING_TO_HEAR) if needed <= times.keys() else None

    # --- listings --------------------------------------------------------------------------------------------------

    def _relist(self, since: float) -> None:
        if self._answered is not None and self._as_of() >= since:
            self._list("requested")
        if not since:
            return  # the first listing, or the one that is asked for, tells all once more
        self._since = max(self._since, since)
        stale = [each for each in self._running if self._listed_at.get(each, 0.0) < since]
        if stale:
            self._relisting = True
            self._api.forget_connections()
            for each in stale:
                self._running[each][0].refresh()

    def _as_of(self) -> float:
        """When the oldest of what is needed was asked for; only once all of it is listed."""
        oldest = self._oldest(self._listed_at) or 0.0
        return time.monotonic() if oldest == NOTHING_TO_HEAR else oldest

    def _end_listing(self) -> None:
        """Answers the newest wish, when all that is needed is there."""
        if not self._needed <= self._cache.listed():
            return
        current = self._as_of() >= self._since
        if self._answered is None:
            if current:
                self._answered = self._revision
                self._relisting = False
                self._list("start")
        elif self._relisting and current:
            self._answered = self._revision
            self._relisting = False
            self._list("requested")
        elif self._answered != self._revision:
            self._answered = self._revision
            self._deliver(ListingEnded(self._listing, self._as_of(), self._answered))

    def _list(self, reason: str) -> None:
        """From what is held; more may be on its way."""
        as_of = self._as_of()
        self._listing += 1
        self._deliver(ListingStarted(self._listing, reason))
        received_at = time.monotonic()
        for found in self._cache.objects():
            self._deliver(Upserted(found, self._listing, received_at))
        self._deliver(ListingEnded(self._listing, as_of, self._answered))


def _is_news(heard: Heard, told: Heard) -> bool:
    if heard.trouble != told.trouble:
        return True
    if heard.heard_at is None or told.heard_at is None or heard.heard_at == told.heard_at:
        return heard.heard_at != told.heard_at
    return abs(heard.heard_at - told.heard_at) >= _HEARD_SECONDS


def worst_trouble(troubles: Iterable[Trouble]) -> Trouble | None:
    """All of the worst kind as one, which began when the first of them did."""
    found = sorted(troubles, key=lambda each: (_WORST_FIRST.index(each.kind), each.since))
    if not found:
        return None
    messages = dict.fromkeys(each.message for each in found if each.kind == found[0].kind)
    return Trouble(found[0].kind, found[0].since, "; ".join(list(messages)[:_MOST_MESSAGES]))
