"""KubernetesSource: the API server as a source of objects, by one list-watch for each collection.

It owns its list-watches, each in a thread of its own, and the objects that they hold. `run` takes their events one by
one, in the watcher's thread, and delivers the events of `k8s.sources.source`. While the API server is away, or refuses
us, no object is delivered, so nothing changes; Heard says how long that has lasted.

When this process was stopped for a while and goes on, its connections and watches may be dead without any sign of it.
The watcher then calls `relist` with a time, and everything is listed again over new connections.
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
from k8s.api.listwatch import ListWatch
from k8s.api.resource import Resource
from k8s.api.stream_events import Changed, Deleted, Failed, Listed, StreamEvent
from k8s.api.trouble import Trouble, TroubleKind
from k8s.sources.cache import ObjectCache
from k8s.sources.object_change import ObjectChange, deliver_change
from k8s.sources.resources import reducer, resources_for
from k8s.sources.source import (
    HEARD_SECONDS,
    NOTHING_TO_HEAR,
    Deliver,
    Heard,
    ListingEnded,
    ListingStarted,
    Topic,
    Upserted,
)

_JOIN_SECONDS = 1.0
_WORST_FIRST = (TroubleKind.REFUSED, TroubleKind.ABSENT, TroubleKind.OUTAGE)
"""A refusal is the worst, since it stays until a person ends it."""
_MAX_MESSAGES = 3


@dataclass(frozen=True, slots=True)
class _ListWatchEvent:
    resource: Resource
    thread: threading.Thread
    """The list-watch's thread. It tells events of this list-watch from those of an earlier one for the same resource,
    which may still arrive."""
    event: StreamEvent


@dataclass(frozen=True, slots=True)
class _ListWatchFailed:
    error: Exception


@dataclass(frozen=True, slots=True)
class _Subscribe:
    topics: frozenset[Topic]
    revision: int


@dataclass(frozen=True, slots=True)
class _Relist:
    since: float


class _Stop:
    pass


_Request: TypeAlias = _ListWatchEvent | _ListWatchFailed | _Subscribe | _Relist | _Stop


class KubernetesSource:
    """See `k8s.sources.source.Source`. `fixed` is always watched, in addition to what is subscribed."""

    def __init__(self, *, api: Api, fixed: Iterable[Resource], redirect: RedirectSettings, deliver: Deliver) -> None:
        self._api = api
        self._redirect = redirect
        self._deliver = deliver
        self._requests: SimpleQueue[_Request] = SimpleQueue()
        self._fixed = frozenset(fixed)
        self._topics: frozenset[Topic] = frozenset()
        self._revision = 0
        """Revision of the newest subscription; 0 before the first."""
        self._confirmed: int | None = None
        """Revision in the last ListingEnded; None before the first."""
        self._running: dict[Resource, tuple[ListWatch, threading.Thread]] = {}
        self._cache = ObjectCache()
        self._listed_at: dict[Resource, float] = {}
        """When the newest list of each resource was requested."""
        self._since = 0.0
        """Every part of a listing must have been requested at this time or later."""
        self._relisting = False
        """A listing as of `_since` was requested, and is not delivered yet."""
        self._heard_at: dict[Resource, float] = {}
        self._troubles: dict[Resource, Trouble] = {}
        self._last_heard = Heard(None)
        """The one that was delivered last."""

    def stop(self) -> None:
        self._requests.put(_Stop())

    def relist(self, since: float = 0.0) -> None:
        """If the objects that are held were listed at `since` or later, delivers them. Otherwise lists them again from
        the API server first."""
        self._requests.put(_Relist(since))

    def subscribe(self, topics: frozenset[Topic], revision: int) -> None:
        self._requests.put(_Subscribe(topics, revision))

    def run(self) -> None:
        try:
            self._start_and_end()
            self._end_listing()
            while True:
                request = self._requests.get()
                match request:
                    case _Stop():
                        return
                    case _ListWatchFailed(error=error):
                        raise error
                    case _Relist(since=since):
                        self._relist(since)
                    case _Subscribe(topics=topics, revision=revision):
                        self._topics, self._revision = topics, revision
                        self._start_and_end()
                        self._end_listing()
                    case _ListWatchEvent(resource=resource, thread=thread, event=event):
                        if resource in self._running and self._running[resource][1] is thread:
                            self._take(resource, event)
        finally:
            self._stop_all()

    # --- list-watches ----------------------------------------------------------------------------------------------

    @property
    def _needed(self) -> frozenset[Resource]:
        return self._fixed | resources_for(self._topics)

    def _start_and_end(self) -> None:
        """Starts the list-watches that are needed. The others end only when the needed ones have listed, so that no
        object seems to be gone in between."""
        needed = self._needed
        for resource in needed - self._running.keys():
            listwatch = ListWatch(
                self._api,
                resource,
                reducer(resource, self._redirect),
                lambda event, resource=resource: self._requests.put(  # type: ignore[misc]
                    _ListWatchEvent(resource, threading.current_thread(), event)
                ),
            )
            thread = threading.Thread(target=self._watch, args=(listwatch,), name=f"watch-{resource.kind}", daemon=True)
            self._running[resource] = listwatch, thread
            thread.start()
        if needed <= self._cache.listed():
            for resource in self._running.keys() - needed:
                self._running.pop(resource)[0].stop()
                for of_resource in (self._listed_at, self._heard_at, self._troubles):
                    of_resource.pop(resource, None)
                self._deliver_change(self._cache.forget(resource), time.monotonic())
            self._deliver_heard()

    def _watch(self, listwatch: ListWatch) -> None:
        """In the list-watch's thread."""
        try:
            listwatch.run()
        except Exception as error:  # noqa: BLE001  (raised again by `run`, as a failure of the watcher)
            self._requests.put(_ListWatchFailed(error))

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
            case Deleted(object_id=object_id, received_at=received_at):
                self._deliver_change(self._cache.delete(resource, object_id), received_at)
        self._deliver_heard(relist_reason)
        if isinstance(event, Listed):
            self._start_and_end()
            self._end_listing()

    def _deliver_change(self, change: ObjectChange, received_at: float) -> None:
        if self._confirmed is not None:  # otherwise the first listing will deliver everything
            deliver_change(change, received_at, self._deliver)

    def _deliver_heard(self, relist_reason: str = "") -> None:
        heard = Heard(self._oldest(self._heard_at), worst_trouble(self._troubles.values()), relist_reason)
        if not (relist_reason or _is_news(heard, self._last_heard)):
            return
        self._last_heard = heard
        self._deliver(heard)

    def _oldest(self, times: Mapping[Resource, float]) -> float | None:
        """The oldest time of all that is needed. None while one is missing; NOTHING_TO_HEAR when nothing is needed."""
        needed = self._needed
        return min((times[each] for each in needed), default=NOTHING_TO_HEAR) if needed <= times.keys() else None

    # --- listings --------------------------------------------------------------------------------------------------

    def _relist(self, since: float) -> None:
        if self._confirmed is not None and self._as_of() >= since:
            self._list("requested")
        if not since:
            return  # if nothing was delivered yet, the first listing will deliver everything
        self._since = max(self._since, since)
        stale = [each for each in self._running if self._listed_at.get(each, 0.0) < since]
        if stale:
            self._relisting = True
            self._api.forget_connections()
            for each in stale:
                self._running[each][0].refresh()

    def _as_of(self) -> float:
        """When the oldest part of what is needed was requested. Only valid once everything needed is listed."""
        oldest = self._oldest(self._listed_at) or 0.0
        return time.monotonic() if oldest == NOTHING_TO_HEAR else oldest

    def _end_listing(self) -> None:
        """Confirms the newest subscription, if everything that is needed is listed."""
        if not self._needed <= self._cache.listed():
            return
        is_recent = self._as_of() >= self._since
        if self._confirmed is None:
            if is_recent:
                self._confirmed = self._revision
                self._relisting = False
                self._list("start")
        elif self._relisting and is_recent:
            self._confirmed = self._revision
            self._relisting = False
            self._list("requested")
        elif self._confirmed != self._revision:
            self._confirmed = self._revision
            self._deliver(ListingEnded(self._as_of(), self._confirmed))

    def _list(self, reason: str) -> None:
        """Delivers everything that is held."""
        as_of = self._as_of()
        self._deliver(ListingStarted(reason))
        received_at = time.monotonic()
        for found in self._cache.objects():
            self._deliver(Upserted(found, received_at))
        self._deliver(ListingEnded(as_of, self._confirmed))


def _is_news(heard: Heard, last: Heard) -> bool:
    if heard.trouble != last.trouble:
        return True
    if heard.heard_at is None or last.heard_at is None or heard.heard_at == last.heard_at:
        return heard.heard_at != last.heard_at
    return abs(heard.heard_at - last.heard_at) >= HEARD_SECONDS


def worst_trouble(troubles: Iterable[Trouble]) -> Trouble | None:
    """All troubles of the worst kind as one, which began when the first of them did."""
    found = sorted(troubles, key=lambda each: (_WORST_FIRST.index(each.kind), each.since))
    if not found:
        return None
    messages = dict.fromkeys(each.message for each in found if each.kind == found[0].kind)
    return Trouble(found[0].kind, found[0].since, "; ".join(list(messages)[:_MAX_MESSAGES]))
