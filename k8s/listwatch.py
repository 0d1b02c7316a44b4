"""One collection of the API, listed and then watched for ever (DESIGN section 7). Blocking; in a thread of its own.

List, watch from the list's resourceVersion, list anew only when that has expired (410). A watch that ends, breaks or
falls silent goes on from where it was. Errors are waited out, ever longer, with jitter: what was delivered before
stays.
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

from k8s.api import Api, ApiError, Raw, Silence, Unreachable, WatchStream, api_error
from k8s.backoff import backoff_seconds
from k8s.fields import ObjectError
from k8s.manifests import Identity, identity_text, raw_identity
from k8s.objects import KubeObject, Policy, Service
from k8s.resources import Reduce, Resource

_log = logging.getLogger(__name__)

PAGE_SIZE = 500
SILENCE_SECONDS = 150.0
"""The API server sends a bookmark about each minute, but none of a kind of which it never saw a change. So a watch that
is silent for so long is asked for again: a server that is dead shows then."""
_WATCH_SECONDS = (300, 600)
"""The API server ends a watch after that; each is drawn anew, so that a thousand agents do not come back together."""
_FIRST_DELAY = 0.25
_LONGEST_DELAY = 10.0
_WELL_SECONDS = 1.0
"""A watch that lasted so long was well."""
_ABSENT_SECONDS = 60.0
"""How long until a CRD that is absent is looked for again."""
_GONE = 410
_NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class Listed:
    """All objects of the collection. `reason`: `start`, or why it was listed anew (`expired`, `absent`)."""

    objects: tuple[KubeObject, ...]
    reason: str
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
    """Nothing changed, and the watch is well."""


StreamEvent: TypeAlias = Listed | Changed | Deleted | Bookmarked


def delay_seconds(failures: int, jitter: float) -> float:
    """Before the next try, after so many failures in a row (1 or more); `jitter` is 0 to 1."""
    return backoff_seconds(failures, jitter, first=_FIRST_DELAY, longest=_LONGEST_DELAY)


class ListWatch:
    """`run` delivers until `stop`, which may come from any thread."""

    def __init__(self, api: Api, resource: Resource, reduce: Reduce, deliver: Callable[[StreamEvent], None]) -> None:
        self._api = api
        self._resource = resource
        self._reduce = reduce
        self._deliver = deliver
        self._stopping = threading.Event()
        self._stream: WatchStream | None = None
        self._version = ""
        """resourceVersion up to which everything is delivered; "" asks for a listing."""
        self._failures = 0
        self._complaint = ""
        """Kind of trouble that was logged last: `unreachable`, or an HTTP status; "" when all is well."""
        self._told: dict[Identity | None, str] = {}
        """Object -> the warning about its present state, so that each is logged once. It goes with the object."""

    def stop(self) -> None:
        self._stopping.set()
        stream = self._stream
        if stream:
            stream.stop()

    def run(self) -> None:
        reason = "start"
        while not self._stopping.is_set():
            try:
                if not self._version:
                    self._list(reason)
                self._watch()
            except ApiError as error:
                reason = self._refused(error) or reason
            except Unreachable as error:
                self._failed("unreachable", str(error))

    def _refused(self, error: ApiError) -> str:
        """Waits as long as is fit. Returns why a new listing is needed; "" when none is."""
        if error.status == _GONE:
            self._version = ""
            self._failures += 1
            if self._failures > 1:  # a server that refuses its own fresh version must not be hammered
                self._wait(delay_seconds(self._failures, random.random()))  # noqa: S311  (jitter, no secret)
            return "expired"
        if error.status == _NOT_FOUND:
            self._version = ""
            if self._resource.optional:
                self._deliver(Listed((), "absent", time.monotonic()))
                self._wait(_ABSENT_SECONDS * (0.8 + 0.4 * random.random()))  # noqa: S311
                return "absent"
        self._failed(str(error.status), _advice(error, self._resource))
        return "absent" if error.status == _NOT_FOUND else ""

    # --- one listing -----------------------------------------------------------------------------------------------

    def _list(self, reason: str) -> None:
        objects: list[KubeObject] = []
        told: dict[Identity | None, str] = {}
        parameters = self._selectors() | {"limit": PAGE_SIZE}
        received_at = time.monotonic()
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
                self._deliver(Listed(tuple(objects), reason, received_at))
                self._version = str(metadata.get("resourceVersion") or "")
                return
            parameters |= {"continue": token}

    # --- one watch -------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
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
            silence_seconds=SILENCE_SECONDS,
            metadata_only=self._resource.metadata_only,
        )
        self._stream = stream
        if self._stopping.is_set():  # stop came before there was a stream to stop
            stream.stop()
        self._answers()
        try:
            for line in stream.lines():
                received_at = time.monotonic()
                if line.strip():
                    self._take(_decoded(line), received_at)
                    self._failures = 0
        except Silence:
            _log.debug("%s: silent for %g s, watched anew", self._resource, SILENCE_SECONDS)
        finally:
            lasted = time.monotonic() - began
            if lasted >= _WELL_SECONDS:
                self._failures = 0
        if not self._stopping.is_set() and lasted < _WELL_SECONDS:
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
        if kind == "BOOKMARK":
            self._deliver(Bookmarked())
        else:
            self._deliver_change(raw, received_at, deleted=kind == "DELETED")
        metadata = raw.get("metadata")
        version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
        if version:
            self._version = str(version)

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

    def _failed(self, kind: str, why: str) -> None:
        """An outage ends connections in many ways, and is one complaint."""
        self._failures += 1
        delay = delay_seconds(self._failures, random.random())  # noqa: S311  (jitter, no secret)
        level = logging.DEBUG if kind == self._complaint else logging.WARNING
        self._complaint = kind
        kept = "what it told last stays in force" if self._version else "nothing is known of it yet"
        _log.log(level, "%s: %s; %s, tried again in %.1f s and then on", self._resource, why, kept, delay)
        self._wait(delay)

    def _answers(self) -> None:
        if self._complaint:
            self._complaint = ""
            _log.info("%s: the API server answers again", self._resource)

    def _wait(self, seconds: float) -> None:
        self._stopping.wait(seconds)


def _decoded(line: bytes) -> Raw:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise Unreachable(f"a watch line is no JSON object: {line[:80]!r}")
    return event


def _advice(error: ApiError, resource: Resource) -> str:
    if error.status == 403:
        return f"{error} (the service account needs get, list and watch of it)"
    if error.status == _NOT_FOUND:
        return f"{error} (is the CRD installed? kubectl apply -f k8s/crd.yaml)"
    return f"{error} ({resource.kind})"
