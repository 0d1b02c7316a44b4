"""One collection of the API, listed and then watched for ever. Blocking; in a thread of its own.

Why not the library's: docs/decisions/0005-list-and-watch.md.

List, watch from the list's resourceVersion, list anew only when that has expired (410) or somebody asks for it. A watch
that ends, breaks or falls silent goes on from where it was. Errors are waited out, ever longer, with jitter, and for no
less than the server asks for (`Retry-After`): what was delivered before stays.

What is said of the server, and what it means (`k8s.sources.source.TroubleKind`):
- it is well while it gives good answers. A watch in which nothing happens is asked for again after SILENCE_SECONDS, and
  the answer to that counts: a real API server sends no bookmarks for a kind of which it never saw a change;
- an outage is whatever keeps us from a good answer and may pass by itself;
- a refusal (401, 403) is an answer of a server that is well, and is not waited out in silence;
- absent is a kind that the server does not have. One 404 does not show that: an API server that is starting, or whose
  CRD is being registered again, says so for a moment. Its discovery documents must agree, several times in a row; only
  then are there no objects. A kind that may be absent and was never there is taken at its first word, since it is
  absent in most clusters and no agent's start should wait for that; it is looked for again soon after.

Where a list comes from: see `Resource.from_cache`. The first list from the cache takes what the server has (as
kubelet and kube-proxy do); a later one is never older than the newest state that was seen before, so that a server that
lags can't bring objects back that are gone.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from config.backoff import Backoff
from k8s.api.absence import is_absent
from k8s.api.client import Api, Raw, WatchStream
from k8s.api.errors import ApiError, Silence, Unreachable, api_error
from k8s.api.resource import Reduce, Resource
from k8s.api.trouble import Trouble, TroubleKind
from k8s.objects.identity import Identity, identity_text, raw_identity
from k8s.objects.metadata import ObjectError
from k8s.objects.model import KubeObject, Policy, Service

_log = logging.getLogger(__name__)

PAGE_SIZE = 500
SILENCE_SECONDS = 150.0
"""The API server sends a bookmark about each minute, but none of a kind of which it never saw a change. So a watch that
is silent for so long is asked for again: a server that is dead shows then."""
_WATCH_SECONDS = (300, 600)
"""The API server ends a watch after that; each is drawn anew, so that a thousand agents do not come back together."""
_BACKOFF = Backoff(first=0.25, longest=10.0)
_WELL_SECONDS = 1.0
"""A watch that lasted so long was well."""
_PROBATION_SECONDS = 5.0
"""After one that did not, the next is asked for again so soon: that it lasted shows that the server is well."""
_ABSENCES = 3
"""So many times in a row must a kind be found absent before its objects count as gone."""
_ABSENT_FIRST_SECONDS = 4.0
_ABSENT_SECONDS = 60.0
"""How long until a CRD that is absent is looked for again, first and at last."""
_MOST_TOO_LARGE = 3
"""So many times in a row a server may not know our newest version yet; after that it never will (etcd was restored from
a backup), and it is asked for whatever is true now."""
_GONE = 410
_NOT_FOUND = 404
_REFUSALS = (401, 403)
_TOO_LARGE = "ResourceVersionTooLarge"


@dataclass(frozen=True, slots=True)
class Listed:
    """All objects of the collection. `reason`: `start`, or why it was listed anew (`expired`, `absent`, `resumed`)."""

    objects: tuple[KubeObject, ...]
    reason: str
    asked_at: float
    """time.monotonic() when the server was asked: what happened before is in it."""
    received_at: float


@dataclass(frozen=True, slots=True)
class Changed:
    object: KubeObject
    received_at: float


@dataclass(frozen=True, slots=True)
class Deleted:
    """The object is gone, is no longer selected, or can't be understood any more (P5)."""

    name: Identity
    received_at: float


@dataclass(frozen=True, slots=True)
class Bookmarked:
    """Nothing changed, and the watch is well: a bookmark came, or the server has accepted the watch."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing was heard, and why; told at every failure."""

    trouble: Trouble


StreamEvent: TypeAlias = Listed | Changed | Deleted | Bookmarked | Failed


class ListWatch:
    """`run` delivers until `stop`, which may come from any thread."""

    def __init__(self, api: Api, resource: Resource, reduce: Reduce, deliver: Callable[[StreamEvent], None]) -> None:
        self._api = api
        self._resource = resource
        self._reduce = reduce
        self._deliver = deliver
        self._stopping = threading.Event()
        self._awake = threading.Event()
        """Ends a wait for the next try: there is something to do."""
        self._refresh_asked = threading.Event()
        self._stream: WatchStream | None = None
        self._version = ""
        """resourceVersion up to which everything is delivered; "" asks for a listing."""
        self._seen = ""
        """The newest one that there was, for a list that must not be older; "" before the first."""
        self._known = False
        """A list was delivered that had this kind."""
        self._verb = "list"
        """What was asked for last, as rights name it."""
        self._failures = 0
        self._absences = 0
        self._too_large = 0
        self._vain = False
        """The last watch was accepted and ended at once: to be accepted is not yet an answer."""
        self._since: dict[TroubleKind, float] = {}
        """When each kind of trouble began; empty when all is well."""
        self._complaint = ""
        """Kind of trouble that was logged last: `unreachable`, or an HTTP status; "" when all is well."""
        self._told: dict[Identity | None, str] = {}
        """Object -> the warning about its present state, so that each is logged once. It goes with the object."""

    def stop(self) -> None:
        self._stopping.set()
        self._awake.set()
        self._end_stream()

    def refresh(self) -> None:
        """From any thread: list anew, whatever the watch may still have to say."""
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
                reason = self._refused(error) or reason
            except Unreachable as error:
                self._absences = 0
                self._failed("unreachable", TroubleKind.OUTAGE, str(error))

    def _refused(self, error: ApiError) -> str:
        """Waits as long as is fit. Returns why a new listing is needed; "" when none is."""
        if error.status != _NOT_FOUND:
            self._absences = 0
        if error.status == _GONE:
            self._version = ""
            self._failures += 1
            if self._failures > 1:  # a server that refuses its own fresh version must not be hammered
                self._wait(_BACKOFF.seconds(self._failures, random.random()), error.retry_after)  # noqa: S311  (jitter)
            return "expired"
        if error.status == _NOT_FOUND:
            self._version = ""
            self._not_found(error)
            return "absent"
        if _TOO_LARGE in error.causes:
            self._too_large += 1
        kind = TroubleKind.REFUSED if error.status in _REFUSALS else TroubleKind.OUTAGE
        self._failed(str(error.status), kind, _advice(error, self._resource, self._verb), error.retry_after)
        return ""

    # --- a kind that is not there ----------------------------------------------------------------------------------

    def _not_found(self, error: ApiError) -> None:
        if not is_absent(self._api, self._resource):
            self._absences = 0
            text = f"{self._resource}: {error}, though the server says that it has this kind"
            self._failed(str(error.status), TroubleKind.OUTAGE, text, error.retry_after)
            return
        self._absences += 1
        if self._absences < _ABSENCES and (self._known or not self._resource.optional):
            text = f"{_advice(error, self._resource, self._verb)}; to be sure, it is asked several times"
            self._fail(str(error.status), TroubleKind.OUTAGE, text, self._kept)
        else:
            self._known = False
            now = time.monotonic()
            self._deliver(Listed((), "absent", now, now))
            if self._resource.optional:
                self._answers()
            else:
                text = _advice(error, self._resource, self._verb)
                self._fail(f"{error.status} absent", TroubleKind.ABSENT, text, "there are no policies now")
        longest = _ABSENT_SECONDS if self._resource.optional else _BACKOFF.longest
        delay = min(longest, _ABSENT_FIRST_SECONDS * 2 ** min(self._absences - 1, 8))
        self._wait(delay * (0.8 + 0.4 * random.random()), error.retry_after)  # noqa: S311

    # --- one listing -----------------------------------------------------------------------------------------------

    def _list(self, reason: str) -> None:
        self._verb = "list"
        objects: list[KubeObject] = []
        told: dict[Identity | None, str] = {}
        parameters = self._selectors() | self._freshness()
        asked_at = received_at = time.monotonic()
        while not self._stopping.is_set():
            page = self._api.get(self._resource.path, parameters, metadata_only=self._resource.metadata_only)
            received_at = time.monotonic()
            for raw in page.get("items") or ():
                name = raw_identity(self._resource.kind, raw)
                found = self._reduced(name, raw)
                if found is not None:
                    objects.append(found)
                if name in self._told:
                    told[name] = self._told[name]
            metadata = page.get("metadata") or {}
            token = metadata.get("continue")
            if not token:
                self._told = told
                self._absences = self._too_large = 0
                self._known = True
                self._answers()
                self._deliver(Listed(tuple(objects), reason, asked_at, received_at))
                self._advance(metadata)
                return
            parameters |= {"continue": token}

    def _freshness(self) -> dict[str, str | int]:
        """A limit, or no version at all, would send an old API server to etcd."""
        if not self._resource.from_cache or self._too_large > _MOST_TOO_LARGE:
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
        stream = self._api.watch(
            self._resource.path,
            parameters,
            silence_seconds=min(_PROBATION_SECONDS, SILENCE_SECONDS) if self._vain else SILENCE_SECONDS,
            metadata_only=self._resource.metadata_only,
        )
        self._stream = stream
        if self._stopping.is_set() or self._refresh_asked.is_set():  # it came before there was a stream to stop
            stream.stop()
        if not self._vain:
            self._answers()
            self._deliver(Bookmarked())
        try:
            for line in stream.lines():
                received_at = time.monotonic()
                if line.strip():
                    self._take(_decoded(line), received_at)
                    self._failures = 0
        except Silence:
            _log.debug("%s: silent for long, watched anew", self._resource)
        finally:
            lasted = time.monotonic() - began
            self._vain = lasted < _WELL_SECONDS
            if not self._vain:
                self._failures = 0
        asked = self._stopping.is_set() or self._refresh_asked.is_set()
        if not asked and self._vain:
            raise Unreachable("the watch was ended at once")  # a server on its way down

    def _take(self, event: Raw, received_at: float) -> None:
        kind, raw = event.get("type"), event.get("object")
        if not isinstance(raw, dict):
            raise Unreachable(f"a watch event without an object: {str(event)[:80]}")
        if kind == "ERROR":
            raise api_error(int(raw.get("code") or 0), raw)
        if kind not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK"):
            _log.warning("%s: unknown watch event %.40r is passed over", self._resource, kind)
            return
        self._answers()
        if kind == "BOOKMARK":
            self._deliver(Bookmarked())
        else:
            self._deliver_change(raw, received_at, deleted=kind == "DELETED")
        metadata = raw.get("metadata")
        if isinstance(metadata, dict) and metadata.get("resourceVersion"):
            self._advance(metadata)

    def _deliver_change(self, raw: Raw, received_at: float, *, deleted: bool) -> None:
        """Of an object that is deleted, nothing but the metadata need be understood."""
        name = raw_identity(self._resource.kind, raw)
        if deleted:
            self._told.pop(name, None)
        found = None if deleted else self._reduced(name, raw)
        if found is not None:
            self._deliver(Changed(found, received_at))
        elif name is not None:
            self._deliver(Deleted(name, received_at))

    # --- what they share -------------------------------------------------------------------------------------------

    def _selectors(self) -> dict[str, str | int]:
        pairs = (("fieldSelector", self._resource.field_selector), ("labelSelector", self._resource.label_selector))
        return {name: value for name, value in pairs if value}

    def _reduced(self, name: Identity | None, raw: Any) -> KubeObject | None:
        """None for an object that can't be understood, which counts as deleted (P5)."""
        found, warning = None, ""
        try:
            found = self._reduce(raw)
        except ObjectError as error:
            warning = f"{error}; the object counts as deleted until this is corrected"
        if name and isinstance(found, Service) and found.faults:
            warning = f"{identity_text(name)}: {'; '.join(found.faults)}; it has no frontend until this is corrected"
        if name and isinstance(found, Policy) and found.unknown_fields:
            warning = f"{identity_text(name)}: unknown fields {', '.join(found.unknown_fields)}"
        if warning and warning != self._told.get(name):
            _log.warning("%s", warning)
        if warning:
            self._told[name] = warning
        else:
            self._told.pop(name, None)
        return found

    @property
    def _kept(self) -> str:
        return "what it told last stays in force" if self._known else "nothing is known of it yet"

    def _failed(self, complaint: str, kind: TroubleKind, why: str, retry_after: float = 0.0) -> None:
        """An outage ends connections in many ways, and is one complaint."""
        self._failures += 1
        self._fail(complaint, kind, why, self._kept)
        self._wait(_BACKOFF.seconds(self._failures, random.random()), retry_after)  # noqa: S311  (jitter, no secret)

    def _fail(self, complaint: str, kind: TroubleKind, why: str, consequence: str) -> None:
        level = logging.DEBUG if complaint == self._complaint else logging.WARNING
        self._complaint = complaint
        text = why if str(self._resource) in why else f"{self._resource}: {why}"
        _log.log(level, "%s; %s, and it is tried again from time to time", text, consequence)
        since = self._since.setdefault(kind, time.monotonic())
        self._deliver(Failed(Trouble(kind, since, text)))

    def _answers(self) -> None:
        self._since.clear()
        if self._complaint:
            self._complaint = ""
            _log.info("%s: the API server answers again", self._resource)

    def _wait(self, seconds: float, at_least: float = 0.0) -> None:
        """The server's wish is kept even when there is something to do; nobody else's is."""
        if at_least:
            seconds = max(seconds, at_least * (1 + random.random() / 4))  # noqa: S311  (so that not all come at once)
            self._stopping.wait(seconds)
        elif not self._stopping.is_set():
            self._awake.wait(seconds)


def _decoded(line: bytes) -> Raw:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise Unreachable(f"a watch line is no JSON object: {line[:80]!r}")
    return event


def _advice(error: ApiError, resource: Resource, verb: str) -> str:
    if error.status == 403:
        missing = f"the right to {verb} {resource.name} is missing"
        return f"{missing} ({error}); the service account needs get, list and watch of it"
    if error.status == 401:
        return f"the API server does not accept our credentials, so we can't {verb} {resource.name} ({error})"
    if error.status == _NOT_FOUND:
        return f"the API server has no {resource.name} ({error}); is the CRD installed? (kubectl apply -f k8s/crd.yaml)"
    return f"{error} ({resource.kind})"
