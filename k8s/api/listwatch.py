"""One collection of the API, listed and then watched until `stop`. Blocking; in a thread of its own.

It lists, watches from the list's resourceVersion, and lists again only when that has expired (410) or `refresh` is
called. When a watch ends, breaks or falls silent, the next one goes on from the same version. After an error it waits
with back-off and jitter, and no less than the server asks for (`Retry-After`). What was delivered before stays valid.
What an answer says about the server, and what follows from a failure, is decided in `k8s.api.server_judgement`.

Where a list comes from, see `Resource.from_cache`. The first list from the cache takes whatever the server has (as
kubelet and kube-proxy do). A later one is never older than the newest state that was seen before, so that a server that
lags behind can't bring back objects that are gone.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable
from http import HTTPStatus

from k8s.api.absence import is_absent
from k8s.api.client import Api, WatchStream
from k8s.api.errors import ApiError, Silence, Unreachable, api_error
from k8s.api.object_reader import ObjectReader
from k8s.api.resource import Reduce, Resource
from k8s.api.server_judgement import ServerJudgement, Wait
from k8s.api.stream_events import Bookmarked, Changed, Deleted, Failed, Listed, StreamEvent
from k8s.api.trouble_log import TroubleLog
from k8s.objects.identity import Identity, raw_identity
from k8s.objects.model import KubeObject
from k8s.objects.raw import Raw

_log = logging.getLogger(__name__)

PAGE_SIZE = 500
_WATCH_SECONDS = (300, 600)
"""The API server is asked to end a watch after a random time in this range, so that a thousand agents do not come back
together."""


class ListWatch:
    """`run` delivers until `stop`, which may come from any thread."""

    def __init__(self, api: Api, resource: Resource, reduce: Reduce, deliver: Callable[[StreamEvent], None]) -> None:
        self._api = api
        self._resource = resource
        self._deliver = deliver
        self._reader = ObjectReader(reduce)
        self._judgement = ServerJudgement(resource)
        self._trouble = TroubleLog(resource)
        self._stopping = threading.Event()
        self._awake = threading.Event()
        """Ends the wait for the next attempt: there is something to do."""
        self._refresh_asked = threading.Event()
        self._stream: WatchStream | None = None
        self._version = ""
        """resourceVersion up to which everything is delivered; "" when a list is needed."""
        self._seen = ""
        """The newest resourceVersion so far, which a list must not be older than; "" before the first."""
        self._verb = "list"
        """The verb of the last request, as in an RBAC rule."""

    def stop(self) -> None:
        self._stopping.set()
        self._awake.set()
        self._end_stream()

    def refresh(self) -> None:
        """From any thread: ends the watch and lists again."""
        self._refresh_asked.set()
        self._awake.set()
        self._end_stream()

    def _end_stream(self) -> None:
        stream = self._stream
        if stream:
            stream.stop()

    def run(self) -> None:
        reason = "start"
        while not self._stopping.is_set():
            if self._refresh_asked.is_set():
                self._awake.clear()
                self._refresh_asked.clear()
                self._version = ""
                reason = "resumed" if self._judgement.known else reason
            try:
                if not self._version:
                    self._list(reason)
                if not self._refresh_asked.is_set():
                    self._watch()
            except (ApiError, Unreachable) as error:
                reason = self._recover(error) or reason

    # --- after a failed request ------------------------------------------------------------------------------------

    def _recover(self, error: ApiError | Unreachable) -> str:
        """Does what the failure requires, and waits until the next attempt.

        Returns why a new list is needed; "" when none is."""
        if isinstance(error, Unreachable):
            reaction = self._judgement.was_unreachable(str(error))
        else:
            absent = error.status == HTTPStatus.NOT_FOUND and is_absent(self._api, self._resource)
            reaction = self._judgement.refused(error, self._verb, absent=absent)
        if reaction.relist:
            self._version = ""
        if reaction.all_gone:
            now = time.monotonic()
            self._deliver(Listed((), reaction.relist, now, now))
        if reaction.ends_trouble:
            self._trouble.end()
        if reaction.report:
            self._deliver(Failed(self._trouble.add(reaction.report)))
        if reaction.wait:
            self._wait(reaction.wait)
        return reaction.relist

    def _wait(self, wait: Wait) -> None:
        """Ends early when there is something to do, unless the server asked us to wait."""
        seconds = wait.seconds(random.random())  # noqa: S311  (jitter)
        if wait.retry_after:
            self._stopping.wait(seconds)
        elif not self._stopping.is_set():
            self._awake.wait(seconds)

    # --- one list --------------------------------------------------------------------------------------------------

    def _list(self, reason: str) -> None:
        self._verb = "list"
        objects: list[KubeObject] = []
        object_ids: set[Identity | None] = set()
        parameters = self._resource.selectors | self._freshness()
        asked_at = received_at = time.monotonic()
        while not self._stopping.is_set():
            page = self._api.get(self._resource.path, parameters, metadata_only=self._resource.metadata_only)
            received_at = time.monotonic()
            for raw in page.get("items") or ():
                object_id = raw_identity(self._resource.kind, raw)
                object_ids.add(object_id)
                found = self._reader.read(object_id, raw)
                if found is not None:
                    objects.append(found)
            metadata = page.get("metadata") or {}
            token = metadata.get("continue")
            if not token:
                self._reader.forget_all_but(object_ids)
                self._judgement.listed()
                self._trouble.end()
                self._deliver(Listed(tuple(objects), reason, asked_at, received_at))
                self._advance(metadata)
                return
            parameters |= {"continue": token}

    def _freshness(self) -> dict[str, str | int]:
        """An API server before 1.32 answers a list with a limit, or without a version, from etcd."""
        if not self._resource.from_cache or self._judgement.lacks_our_version:
            return {"limit": PAGE_SIZE}
        if not self._seen:
            return {"resourceVersion": "0"}
        return {"resourceVersion": self._seen, "resourceVersionMatch": "NotOlderThan"}

    def _advance(self, metadata: Raw) -> None:
        version = metadata.get("resourceVersion")
        self._version = str(version or "")
        self._seen = self._version or self._seen

    # --- one watch -------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        self._verb = "watch"
        parameters = self._resource.selectors | {
            "watch": "1",
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": random.randint(*_WATCH_SECONDS),  # noqa: S311
        }
        began = time.monotonic()
        silence_seconds = self._judgement.silence_seconds
        stream = self._api.watch(
            self._resource.path,
            parameters,
            silence_seconds=silence_seconds,
            metadata_only=self._resource.metadata_only,
        )
        self._stream = stream
        if self._is_interrupted:  # `stop` or `refresh` came before there was a stream that it could end
            stream.stop()
        if not self._judgement.on_probation:
            self._trouble.end()
            self._deliver(Bookmarked())
        try:
            for line in stream.lines():
                received_at = time.monotonic()
                if line.strip():
                    self._take(_decoded(line), received_at)
                    self._judgement.sent_event()
        except Silence:
            _log.debug("%s: nothing came for %s s; watching again", self._resource, silence_seconds)
        finally:
            self._judgement.ended_watch(time.monotonic() - began)
        if self._judgement.on_probation and not self._is_interrupted:
            raise Unreachable("the server ended the watch at once")  # it is probably shutting down

    @property
    def _is_interrupted(self) -> bool:
        return self._stopping.is_set() or self._refresh_asked.is_set()

    def _take(self, event: Raw, received_at: float) -> None:
        kind, raw = event.get("type"), event.get("object")
        if not isinstance(raw, dict):
            raise Unreachable(f"a watch event without an object: {str(event)[:80]}")
        if kind == "ERROR":
            raise api_error(int(raw.get("code") or 0), raw)
        if kind not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK"):
            _log.warning("%s: ignored a watch event of the unknown type %.40r", self._resource, kind)
            return
        self._trouble.end()
        if kind == "BOOKMARK":
            self._deliver(Bookmarked())
        else:
            self._deliver_change(raw, received_at, deleted=kind == "DELETED")
        metadata = raw.get("metadata")
        if isinstance(metadata, dict) and metadata.get("resourceVersion"):
            self._advance(metadata)

    def _deliver_change(self, raw: Raw, received_at: float, *, deleted: bool) -> None:
        """Of a deleted object, only the metadata is read."""
        object_id = raw_identity(self._resource.kind, raw)
        if deleted:
            self._reader.forget(object_id)
        found = None if deleted else self._reader.read(object_id, raw)
        if found is not None:
            self._deliver(Changed(found, received_at))
        elif object_id is not None:
            self._deliver(Deleted(object_id, received_at))


def _decoded(line: bytes) -> Raw:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise Unreachable(f"a line of the watch is not a JSON object: {line[:80]!r}")
    return event
