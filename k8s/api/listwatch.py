"""One collection of the API, listed and then watched until `stop`. Blocking; in a thread of its own.

It lists, watches from the list's resourceVersion, and lists again only when that has expired (410) or `refresh` is
called. When a watch ends, breaks or falls silent, the next one goes on from the same version. After an error it waits
with back-off and jitter, and no less than the server asks for (`Retry-After`). What was delivered before stays valid.

How it judges the server (`k8s.api.trouble.TroubleKind`):
- The server works as long as it gives good answers. A watch in which nothing happens for SILENCE_SECONDS is requested
  again, and the answer to that request counts: a real API server sends no bookmarks for a kind that never changed.
- An outage is anything that prevents a good answer and may pass by itself.
- A refusal (401, 403) comes from a server that works. Only a person can end it, so it is reported as such.
- Absent is a kind that the server does not have. One 404 does not prove that: an API server that is starting, or one
  whose CRD is being registered again, answers 404 for a moment. So the discovery documents must agree, several times in
  a row, before the objects count as gone. There is one exception: an optional kind that was never there counts as
  absent at once, because it is absent in most clusters and no agent should wait for it at its start.

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

from config.backoff import Backoff
from k8s.api.absence import is_absent
from k8s.api.client import Api, WatchStream
from k8s.api.errors import REFUSALS, ApiError, Silence, Unreachable, api_error
from k8s.api.object_reader import ObjectReader
from k8s.api.resource import Reduce, Resource
from k8s.api.stream_events import Bookmarked, Changed, Deleted, Failed, Listed, StreamEvent
from k8s.api.trouble import TroubleKind
from k8s.api.trouble_log import TroubleLog, advice
from k8s.objects.identity import Identity, raw_identity
from k8s.objects.model import KubeObject
from k8s.objects.raw import Raw

_log = logging.getLogger(__name__)

PAGE_SIZE = 500
SILENCE_SECONDS = 150.0
"""An API server sends a bookmark about every minute, but none for a kind that never changed. After this time without
any event the watch is requested again, which shows whether the server is still there."""
_WATCH_SECONDS = (300, 600)
"""The API server is asked to end a watch after a random time in this range, so that a thousand agents do not come back
together."""
_BACKOFF = Backoff(first=0.25, longest=10.0)
_WELL_SECONDS = 1.0
"""If a watch lasts this long, the server worked during it. A server that is shutting down accepts a watch and ends it
at once."""
_PROBATION_SECONDS = 5.0
"""In place of SILENCE_SECONDS for the watch that follows one that ended at once. When it passes in silence, the server
counts as working again, and the watch is requested again."""
_ABSENCES = 3
"""How many times in a row a kind must be found absent before its objects count as gone."""
_ABSENT_BACKOFF = Backoff(first=5.0, longest=10.0)
"""The wait until a kind that was found absent is looked for again. The server may be starting, so the _ABSENCES must
not follow each other at once."""
_ABSENT_OPTIONAL_BACKOFF = Backoff(first=5.0, longest=60.0)
"""The same for an optional kind, which is absent in most clusters."""
_MAX_TOO_LARGE = 3
"""How many times in a row a server may say that it does not know our newest version yet. After that we take what it
has: its etcd was probably restored from a backup, so it will never know the version."""
_TOO_LARGE = "ResourceVersionTooLarge"


class ListWatch:
    """`run` delivers until `stop`, which may come from any thread."""

    def __init__(self, api: Api, resource: Resource, reduce: Reduce, deliver: Callable[[StreamEvent], None]) -> None:
        self._api = api
        self._resource = resource
        self._deliver = deliver
        self._reader = ObjectReader(reduce)
        self._trouble = TroubleLog(resource)
        self._stopping = threading.Event()
        self._awake = threading.Event()
        """Ends the wait for the next attempt: there is something to do."""
        self._refresh_asked = threading.Event()
        self._stream: WatchStream | None = None
        self._version = ""
        """resourceVersion up to which everything is delivered; "" when a listing is needed."""
        self._seen = ""
        """The newest resourceVersion so far, which a list must not be older than; "" before the first."""
        self._known = False
        """Whether a list was delivered while the server had this kind."""
        self._verb = "list"
        """The verb of the last request, as in an RBAC rule."""
        self._failures = 0
        """In a row."""
        self._absences = 0
        self._too_large = 0
        self._ended_at_once = False
        """The last watch was accepted and ended within _WELL_SECONDS. Until a watch lasts longer, the acceptance of a
        watch does not count as a good answer."""

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
                reason = "resumed" if self._known else reason
            try:
                if not self._version:
                    self._list(reason)
                if not self._refresh_asked.is_set():
                    self._watch()
            except ApiError as error:
                reason = self._handle_refusal(error) or reason
            except Unreachable as error:
                self._absences = 0
                self._fail(TroubleKind.OUTAGE, "unreachable", str(error))

    def _handle_refusal(self, error: ApiError) -> str:
        """Waits until the next attempt. Returns why a new listing is needed; "" when none is."""
        if error.status != HTTPStatus.NOT_FOUND:
            self._absences = 0
        if error.status == HTTPStatus.GONE:
            self._version = ""
            self._failures += 1
            if self._failures > 1:  # the server refuses the version that it has just given us
                self._wait(_BACKOFF, self._failures, error.retry_after)
            return "expired"
        if error.status == HTTPStatus.NOT_FOUND:
            self._version = ""
            self._handle_not_found(error)
            return "absent"
        if _TOO_LARGE in error.causes:
            self._too_large += 1
        kind = TroubleKind.REFUSED if error.status in REFUSALS else TroubleKind.OUTAGE
        self._fail(kind, str(error.status), advice(error, self._resource, self._verb), error.retry_after)
        return ""

    def _handle_not_found(self, error: ApiError) -> None:
        if not is_absent(self._api, self._resource):
            self._absences = 0
            why = f"{self._resource}: {error}, although the API server says that it has this kind"
            self._fail(TroubleKind.OUTAGE, str(error.status), why, error.retry_after)
            return
        self._absences += 1
        why = advice(error, self._resource, self._verb)
        if self._absences < _ABSENCES and (self._known or not self._resource.optional):
            why = f"{why}; it counts as absent only after {_ABSENCES} such answers"
            self._report(TroubleKind.OUTAGE, str(error.status), why, self._consequence)
        else:
            self._known = False
            now = time.monotonic()
            self._deliver(Listed((), "absent", now, now))
            if self._resource.optional:
                self._trouble.end()
            else:
                self._report(TroubleKind.ABSENT, f"{error.status} absent", why, "until then there are no policies")
        backoff = _ABSENT_OPTIONAL_BACKOFF if self._resource.optional else _ABSENT_BACKOFF
        self._wait(backoff, self._absences, error.retry_after)

    # --- one listing -----------------------------------------------------------------------------------------------

    def _list(self, reason: str) -> None:
        self._verb = "list"
        objects: list[KubeObject] = []
        names: set[Identity | None] = set()
        parameters = self._selectors() | self._freshness()
        asked_at = received_at = time.monotonic()
        while not self._stopping.is_set():
            page = self._api.get(self._resource.path, parameters, metadata_only=self._resource.metadata_only)
            received_at = time.monotonic()
            for raw in page.get("items") or ():
                name = raw_identity(self._resource.kind, raw)
                names.add(name)
                found = self._reader.read(name, raw)
                if found is not None:
                    objects.append(found)
            metadata = page.get("metadata") or {}
            token = metadata.get("continue")
            if not token:
                self._reader.forget_all_but(names)
                self._absences = self._too_large = 0
                self._known = True
                self._trouble.end()
                self._deliver(Listed(tuple(objects), reason, asked_at, received_at))
                self._advance(metadata)
                return
            parameters |= {"continue": token}

    def _freshness(self) -> dict[str, str | int]:
        """An API server before 1.32 answers a list with a limit, or without a version, from etcd."""
        if not self._resource.from_cache or self._too_large > _MAX_TOO_LARGE:
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
        parameters = self._selectors() | {
            "watch": "1",
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": random.randint(*_WATCH_SECONDS),  # noqa: S311
        }
        began = time.monotonic()
        silence_seconds = min(_PROBATION_SECONDS, SILENCE_SECONDS) if self._ended_at_once else SILENCE_SECONDS
        stream = self._api.watch(
            self._resource.path,
            parameters,
            silence_seconds=silence_seconds,
            metadata_only=self._resource.metadata_only,
        )
        self._stream = stream
        if self._is_interrupted:  # `stop` or `refresh` came before there was a stream that it could end
            stream.stop()
        if not self._ended_at_once:
            self._trouble.end()
            self._deliver(Bookmarked())
        try:
            for line in stream.lines():
                received_at = time.monotonic()
                if line.strip():
                    self._take(_decoded(line), received_at)
                    self._failures = 0
        except Silence:
            _log.debug("%s: nothing came for %s s; watching again", self._resource, silence_seconds)
        finally:
            self._ended_at_once = time.monotonic() - began < _WELL_SECONDS
            if not self._ended_at_once:
                self._failures = 0
        if self._ended_at_once and not self._is_interrupted:
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
        name = raw_identity(self._resource.kind, raw)
        if deleted:
            self._reader.forget(name)
        found = None if deleted else self._reader.read(name, raw)
        if found is not None:
            self._deliver(Changed(found, received_at))
        elif name is not None:
            self._deliver(Deleted(name, received_at))

    # --- what listing and watching share ---------------------------------------------------------------------------

    def _selectors(self) -> dict[str, str | int]:
        pairs = (("fieldSelector", self._resource.field_selector), ("labelSelector", self._resource.label_selector))
        return {name: value for name, value in pairs if value}

    @property
    def _consequence(self) -> str:
        return "the last known state stays in force" if self._known else "its objects are not known yet"

    def _fail(self, kind: TroubleKind, cause: str, why: str, retry_after: float = 0.0) -> None:
        """Reports a failure, and waits until the next attempt."""
        self._failures += 1
        self._report(kind, cause, why, self._consequence)
        self._wait(_BACKOFF, self._failures, retry_after)

    def _report(self, kind: TroubleKind, cause: str, why: str, consequence: str) -> None:
        self._deliver(Failed(self._trouble.add(kind, cause, why, consequence)))

    def _wait(self, backoff: Backoff, failures: int, retry_after: float) -> None:
        """Ends early when there is something to do, unless the server asked us to wait (`retry_after`, in seconds)."""
        seconds = backoff.seconds(failures, random.random(), retry_after=retry_after)  # noqa: S311  (jitter)
        if retry_after:
            self._stopping.wait(seconds)
        elif not self._stopping.is_set():
            self._awake.wait(seconds)


def _decoded(line: bytes) -> Raw:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise Unreachable(f"a line of the watch is not a JSON object: {line[:80]!r}")
    return event
