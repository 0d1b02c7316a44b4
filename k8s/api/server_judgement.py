"""What the answers to one list-watch say about the API server, and how to go on after a failed request. Pure.

How the server is judged (`k8s.api.trouble.TroubleKind`):
- The server works as long as it gives good answers. A watch in which nothing happens for SILENCE_SECONDS is requested
  again, and the answer to that request counts: a real API server sends no bookmarks for a kind that never changed.
- An outage is anything that prevents a good answer and may pass by itself.
- A refusal (401, 403) comes from a server that works. Only a person can end it, so it is reported as such.
- Absent is a kind that the server does not have. One 404 does not prove that: an API server that is starting, or one
  whose CRD is being registered again, answers 404 for a moment. So the discovery documents must agree, several times in
  a row, before the objects count as gone. There is one exception: an optional kind that was never there counts as
  absent at once, because it is absent in most clusters and no agent should wait for it at its start.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple

from config.backoff import Backoff
from k8s.api.errors import REFUSALS, ApiError
from k8s.api.resource import Resource
from k8s.api.trouble import TroubleKind

SILENCE_SECONDS = 150.0
"""An API server sends a bookmark about every minute, but none for a kind that never changed. After this time without
any event the watch is requested again, which shows whether the server is still there."""
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


class TroubleReport(NamedTuple):
    """A failure, for `TroubleLog`."""

    kind: TroubleKind
    cause: str
    """What failures have in common that are logged only once: a word, or an HTTP code."""
    why: str
    consequence: str


class Wait(NamedTuple):
    """The wait until the next attempt."""

    backoff: Backoff
    failures: int
    """In a row; 1 or more."""
    retry_after: float = 0.0
    """Seconds that the server asks us to wait; 0 when it does not ask. If it asks, only `stop` may end the wait."""

    def seconds(self, jitter: float) -> float:
        """`jitter` (0 to 1): see `Backoff`."""
        return self.backoff.seconds(self.failures, jitter, retry_after=self.retry_after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction:
    """What to do about a failed request, in this order."""

    relist: str = ""
    """Why a new list is needed, as in `Listed.reason`; "" when the last version is still good."""
    all_gone: bool = False
    """The kind is absent, so all its objects count as gone."""
    ends_trouble: bool = False
    """The answer counts as a good one, since an optional kind may be absent."""
    report: TroubleReport | None = None
    wait: Wait | None = None
    """None: try again at once."""


class ServerJudgement:
    """ListWatch tells it of every answer. Its methods are named after what the server did."""

    def __init__(self, resource: Resource) -> None:
        self._resource = resource
        self.known = False
        """Whether a list was delivered while the server had this kind."""
        self.on_probation = False
        """The last watch was accepted and ended within _WELL_SECONDS. Until a watch lasts longer, the acceptance of a
        watch does not count as a good answer."""
        self._failures = 0
        """In a row."""
        self._absences = 0
        self._too_large = 0

    @property
    def silence_seconds(self) -> float:
        """After this time without any event, the next watch is requested again."""
        return _PROBATION_SECONDS if self.on_probation else SILENCE_SECONDS

    @property
    def lacks_our_version(self) -> bool:
        """Whether the server will probably never know the newest version that we have seen."""
        return self._too_large > _MAX_TOO_LARGE

    def listed(self) -> None:
        self._absences = self._too_large = 0
        self.known = True

    def sent_event(self) -> None:
        self._failures = 0

    def ended_watch(self, lasted_seconds: float) -> None:
        """Also for a watch that broke or fell silent."""
        self.on_probation = lasted_seconds < _WELL_SECONDS
        if not self.on_probation:
            self._failures = 0

    def was_unreachable(self, why: str) -> Reaction:
        self._absences = 0
        return self._failed(TroubleKind.OUTAGE, "unreachable", why)

    def refused(self, error: ApiError, verb: str, *, absent: bool) -> Reaction:
        """`verb`: of the request, as in an RBAC rule. `absent`: whether discovery agrees with a 404."""
        if absent:
            return self._lacked_the_kind(error, verb)
        self._absences = 0
        if error.status == HTTPStatus.NOT_FOUND:
            why = f"{self._resource}: {error}, although the API server says that it has this kind"
            return self._failed(TroubleKind.OUTAGE, str(error.status), why, error.retry_after, relist="absent")
        if error.status == HTTPStatus.GONE:
            self._failures += 1
            again = self._failures > 1  # the server refuses the version that it has just given us
            return Reaction(relist="expired", wait=Wait(_BACKOFF, self._failures, error.retry_after) if again else None)
        if _TOO_LARGE in error.causes:
            self._too_large += 1
        kind = TroubleKind.REFUSED if error.status in REFUSALS else TroubleKind.OUTAGE
        return self._failed(kind, str(error.status), self._advice(error, verb), error.retry_after)

    def _lacked_the_kind(self, error: ApiError, verb: str) -> Reaction:
        optional = self._resource.optional
        self._absences += 1
        gone = self._absences >= _ABSENCES or (optional and not self.known)
        why = self._advice(error, verb)
        report: TroubleReport | None = None
        if not gone:
            why = f"{why}; it counts as absent only after {_ABSENCES} such answers"
            report = TroubleReport(TroubleKind.OUTAGE, str(error.status), why, self._consequence)
        elif not optional:
            report = TroubleReport(
                TroubleKind.ABSENT, f"{error.status} absent", why, "until then there are no policies"
            )
        self.known = self.known and not gone
        return Reaction(
            relist="absent",
            all_gone=gone,
            ends_trouble=gone and optional,
            report=report,
            wait=Wait(_ABSENT_OPTIONAL_BACKOFF if optional else _ABSENT_BACKOFF, self._absences, error.retry_after),
        )

    def _failed(
        self, kind: TroubleKind, cause: str, why: str, retry_after: float = 0.0, *, relist: str = ""
    ) -> Reaction:
        self._failures += 1
        report = TroubleReport(kind, cause, why, self._consequence)
        return Reaction(relist=relist, report=report, wait=Wait(_BACKOFF, self._failures, retry_after))

    @property
    def _consequence(self) -> str:
        return "the last known state stays in force" if self.known else "its objects are not known yet"

    def _advice(self, error: ApiError, verb: str) -> str:
        """Why a request was refused, and what to do about it."""
        name = self._resource.name
        if error.status == HTTPStatus.FORBIDDEN:
            missing = f"the right to {verb} {name} is missing"
            return f"{missing} ({error}); the service account needs get, list and watch for {name}"
        if error.status == HTTPStatus.UNAUTHORIZED:
            return f"the API server does not accept our credentials, so we cannot {verb} {name} ({error})"
        if error.status == HTTPStatus.NOT_FOUND:
            return f"the API server has no {name} ({error}); is the CRD installed? (kubectl apply -f k8s/crd.yaml)"
        return f"{error} ({self._resource.kind})"
