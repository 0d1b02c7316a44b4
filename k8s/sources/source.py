"""What a source of objects delivers, whichever it is (docs/architecture.md)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol as Interface
from typing import TypeAlias

from config.domain.ids import NamespacedName, ObjectKey
from k8s.api.trouble import Trouble
from k8s.objects.model import KubeObject, PodQuery

NOTHING_TO_HEAR = math.inf
Wanted: TypeAlias = NamespacedName | PodQuery
"""A Service by its name, or the Pods that a query finds."""


@dataclass(frozen=True, slots=True)
class ListingStarted:
    """A new listing begins, number `listing`. `reason` is `start`, `requested`, `overflow`, ...: a fixed word."""

    listing: int
    reason: str


@dataclass(frozen=True, slots=True)
class Upserted:
    object: KubeObject
    listing: int
    received_at: float
    """time.monotonic() when the event reached us."""


@dataclass(frozen=True, slots=True)
class Removed:
    kind: str
    """`LocalRedirectPolicy`, `BalancingPolicy`, `Service`, `Pod` or `Node`."""
    key: ObjectKey
    received_at: float


@dataclass(frozen=True, slots=True)
class ListingEnded:
    """All objects that exist were delivered under `listing`; those seen only under older ones are gone.

    Told again, under the same number, when the source has come to cover what it was asked for since.
    """

    listing: int
    as_of: float
    """time.monotonic() at which the oldest part of it was asked of where it comes from. What changed since then was
    delivered as changes, as far as it was heard of: a process that was stopped meanwhile may have missed some."""
    revision: int | None = None
    """Revision of the newest `subscribe` that is covered; None: whatever there is was delivered."""


@dataclass(frozen=True, slots=True)
class Heard:
    """How the source stands with where its objects come from; told when that changes, and about each second in which
    something was heard."""

    heard_at: float | None
    """time.monotonic() of the last good answer or event. Of a source of several parts: of the part that has been silent
    for longest, so that one part that is well does not hide another that is not. None: a part was never heard.
    NOTHING_TO_HEAR: it has no part, since nothing is wanted of it."""
    trouble: Trouble | None = None
    """The worst that there is; None when all is well."""
    relist_reason: str = ""
    """Why a part of it was listed anew, when it was; what that changed is delivered as changes."""


SourceEvent: TypeAlias = ListingStarted | Upserted | Removed | ListingEnded | Heard
Deliver: TypeAlias = Callable[[SourceEvent], None]


class Source(Interface):
    """A blocking reader of some kinds of objects; a watcher runs it in a thread of its own."""

    def run(self) -> None:
        """Delivers events until `stop`. Returning before that, or raising, is a failure of the watcher."""

    def stop(self) -> None:
        """From any thread: makes `run` return soon."""

    def relist(self, since: float = 0.0) -> None:
        """From any thread: deliver everything again, under the next number, as it was read at time.monotonic()
        `since` or later; 0: as it is known."""

    def subscribe(self, wanted: frozenset[Wanted], revision: int) -> None:
        """From any thread: what is to be delivered from now on, in place of what was wanted before; revisions grow.
        Once all of it is covered, ListingEnded answers. A source that delivers whatever there is takes no notice."""
