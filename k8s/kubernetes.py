"""KubernetesSource: the API server as a source of objects (DESIGN section 7), by one list-watch a collection.

Owns its list-watches, each in a thread of its own, and what they hold; `run` takes their events one by one, in its
watcher's thread. Delivers `k8s.source` events. While the API server is away nothing is delivered, so nothing changes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeAlias

from config.settings import RedirectSettings
from k8s.api import Api
from k8s.cache import Change, ObjectCache
from k8s.listwatch import Changed, Deleted, Listed, ListWatch, StreamEvent
from k8s.resources import Resource, reducer, resources_for
from k8s.source import Deliver, Heard, ListingEnded, ListingStarted, Removed, Upserted, Wanted

_JOIN_SECONDS = 1.0


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


class _RelistAsked:
    pass


class _StopAsked:
    pass


_Request: TypeAlias = _Happened | _Broke | _WantAsked | _RelistAsked | _StopAsked


class KubernetesSource:
    """See `k8s.source.Source`. `fixed` is watched always, what `want` names beside it."""

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
        self._generation = time.monotonic_ns()
        self._answered: int | None = None
        """As ListingEnded said last; None before the first."""

    def stop(self) -> None:
        self._requests.put(_StopAsked())

    def relist(self) -> None:
        """From what is held: the API server is not asked again, and may be away."""
        self._requests.put(_RelistAsked())

    def want(self, wanted: frozenset[Wanted], revision: int) -> None:
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
                    case _RelistAsked():
                        if self._answered is not None:
                            self._list("requested")
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
                self._deliver_change(self._cache.forget(resource), time.monotonic())

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
        match event:
            case Listed(objects=objects, reason=reason, received_at=received_at):
                self._deliver_change(self._cache.list(resource, objects), received_at)
                self._deliver(Heard("" if reason == "start" else reason))
                self._start_and_end()
                self._end_listing()
            case Changed(object=found, received_at=received_at):
                self._deliver_change(self._cache.change(resource, found), received_at)
            case Deleted(name=name, received_at=received_at):
                self._deliver_change(self._cache.delete(resource, name), received_at)
            case _:
                self._deliver(Heard())

    def _deliver_change(self, change: Change, received_at: float) -> None:
        if self._answered is None:
            return  # the first listing tells all
        # New ones first: a backend that moves must not leave a gap.
        for found in change.upserted:
            self._deliver(Upserted(found, self._generation, received_at))
        for kind, key in change.removed:
            self._deliver(Removed(kind, key, received_at))

    def _end_listing(self) -> None:
        """Answers the newest wish, when all that is needed is there."""
        if not self._needed <= self._cache.listed():
            return
        if self._answered is None:
            self._answered = self._revision
            self._list("start")
        elif self._answered != self._revision:
            self._answered = self._revision
            self._deliver(ListingEnded(self._generation, self._answered))

    def _list(self, reason: str) -> None:
        """From what is held; more may be on its way."""
        self._generation += 1
        self._deliver(ListingStarted(self._generation, reason))
        received_at = time.monotonic()
        for found in self._cache.objects():
            self._deliver(Upserted(found, self._generation, received_at))
        self._deliver(ListingEnded(self._generation, self._answered))
