"""What a source of objects delivers, whichever it is (DESIGN section 7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol as Interface
from typing import TypeAlias

from k8s.objects import KubeObject, ObjectKey


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
    """All objects that exist were delivered under `generation`; those seen only under older ones are gone."""

    generation: int


SourceEvent: TypeAlias = ListingStarted | Upserted | Removed | ListingEnded
Deliver: TypeAlias = Callable[[SourceEvent], None]


class Source(Interface):
    """A blocking reader of some kinds of objects; a watcher runs it in a thread of its own."""

    def run(self) -> None:
        """Delivers events until `stop`. Returning before that, or raising, is a failure of the watcher."""

    def stop(self) -> None:
        """From any thread: makes `run` return soon."""

    def relist(self) -> None:
        """From any thread: list everything again, under the next generation."""
