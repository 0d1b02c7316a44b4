"""What every source of objects offers and delivers, be it the API server or a directory (docs/architecture.md)."""

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
HEARD_SECONDS = 1.0
"""A source delivers Heard at most once in this time while nothing but `heard_at` changes."""
Topic: TypeAlias = NamespacedName | PodQuery
"""What a source can be asked to deliver: a Service by its name, or the Pods that a query selects."""


@dataclass(frozen=True, slots=True)
class ListingStarted:
    """A new listing begins: all objects follow, then ListingEnded. `reason` is `start`, `requested` or `overflow`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Upserted:
    object: KubeObject
    received_at: float
    """time.monotonic() when the event reached us."""


@dataclass(frozen=True, slots=True)
class Removed:
    key: ObjectKey
    """It tells a policy, a Node, and a namespaced object apart. No source delivers both Services and Pods."""
    received_at: float


@dataclass(frozen=True, slots=True)
class ListingEnded:
    """All objects that exist were delivered since the last ListingStarted; those that came only before it are gone.

    It is delivered again, without a ListingStarted, when the source has completed a newer subscription.
    """

    as_of: float
    """time.monotonic() at which the oldest part of the listing was requested. Later changes are delivered one by one.
    While the whole process is stopped, the source may miss some."""
    revision: int | None = None
    """Revision of the newest subscription that is complete; None: the source delivers everything that it has."""


@dataclass(frozen=True, slots=True)
class Heard:
    """Whether the source is in contact with the place where its objects come from. It is delivered when that changes,
    and about once a second while the source hears something."""

    heard_at: float | None
    """time.monotonic() of the last good answer or event.

    If the source has several parts, it is the time of the part that has been silent for longest, so that a part that
    works does not hide one that does not. None: at least one part has never heard anything. NOTHING_TO_HEAR: nothing is
    subscribed, so the source has no part."""
    trouble: Trouble | None = None
    """The worst trouble of all parts; None when there is none."""
    relist_reason: str = ""
    """Why a part was listed again; "" when none was. What that changed is delivered as changes."""


SourceEvent: TypeAlias = ListingStarted | Upserted | Removed | ListingEnded | Heard
Deliver: TypeAlias = Callable[[SourceEvent], None]


class Source(Interface):
    """A blocking reader of some kinds of objects; a watcher runs it in a thread of its own."""

    def run(self) -> None:
        """Delivers events until `stop`. If it returns before that, or raises, the watcher has failed."""

    def stop(self) -> None:
        """From any thread: makes `run` return soon."""

    def relist(self, since: float = 0.0) -> None:
        """From any thread: delivers everything again, as a new listing.

        Everything was read at time.monotonic() `since` or later; 0: at any time.
        """

    def subscribe(self, topics: frozenset[Topic], revision: int) -> None:
        """From any thread: delivers these topics from now on, in place of those of the last call. Revisions grow.

        ListingEnded confirms the revision once all topics are complete. A source that delivers everything ignores this.
        """
