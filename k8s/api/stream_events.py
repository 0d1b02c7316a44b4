"""What a list-watch delivers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from k8s.api.trouble import Trouble
from k8s.objects.identity import Identity
from k8s.objects.model import KubeObject


@dataclass(frozen=True, slots=True)
class Listed:
    """All objects of the collection. `reason`: `start`, or why it was listed again (`expired`, `absent`, `resumed`)."""

    objects: tuple[KubeObject, ...]
    reason: str
    asked_at: float
    """time.monotonic() of the request: the list contains everything that happened before."""
    received_at: float


@dataclass(frozen=True, slots=True)
class Changed:
    object: KubeObject
    received_at: float


@dataclass(frozen=True, slots=True)
class Deleted:
    """The object is gone, or is no longer selected, or can no longer be understood (P5)."""

    object_id: Identity
    received_at: float


@dataclass(frozen=True, slots=True)
class Bookmarked:
    """Nothing changed, and the server works: it sent a bookmark, or accepted the watch."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A request failed; delivered for every failure."""

    trouble: Trouble


StreamEvent: TypeAlias = Listed | Changed | Deleted | Bookmarked | Failed
