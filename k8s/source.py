"""What a source of objects delivers, whichever it is (DESIGN section 7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol as Interface
from typing import TypeAlias

from k8s.objects import KubeObject, NamespacedName, ObjectKey, PodQuery

Wanted: TypeAlias = NamespacedName | PodQuery
"""A Service by its name, or the Pods that a query finds."""


class SourceConfigError(Exception):
    """The source can't be used as configured: the text names the key and what is allowed."""


@dataclass(frozen=True, slots=True)
class ListingStarted:
    """A new listing begins under `generation`. `reason` is `start`, `requested`, `overflow`, ...: a fixed word."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Upserted:
    object: KubeObject
    generation: int
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
    """All objects that exist were delivered under `generation`; those seen only under older ones are gone.

    Told again, under the same generation, when the source has come to cover what it was asked for since.
    """

    generation: int
    answers: int | None = None
    """Revision of the newest `want` that is covered; None: whatever there is was delivered."""


@dataclass(frozen=True, slots=True)
class Heard:
    """The source is well, though no object changed (a bookmark), or a part of it was listed anew (then `relist_reason`
    says why; what that changed is delivered as changes)."""

    relist_reason: str = ""


SourceEvent: TypeAlias = ListingStarted | Upserted | Removed | ListingEnded | Heard
Deliver: TypeAlias = Callable[[SourceEvent], None]


class Source(Interface):
    """A blocking reader of some kinds of objects; a watcher runs it in a thread of its own."""

    def run(self) -> None:
        """Delivers events until `stop`. Returning before that, or raising, is a failure of the watcher."""

    def stop(self) -> None:
        """From any thread: makes `run` return soon."""

    def relist(self) -> None:
        """From any thread: deliver everything again, under the next generation."""

    def want(self, wanted: frozenset[Wanted], revision: int) -> None:
        """From any thread: what is to be delivered from now on, in place of what was wanted before; revisions grow.
        Once all of it is covered, ListingEnded answers. A source that delivers whatever there is takes no notice."""
