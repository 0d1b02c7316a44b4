"""What an event of the API, or a change of files, changes among the objects of a source; and how that is delivered."""

from __future__ import annotations

from dataclasses import dataclass

from k8s.objects.identity import Identity
from k8s.objects.model import KubeObject
from k8s.sources.source import Deliver, Removed, Upserted


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectChange:
    upserted: tuple[KubeObject, ...] = ()
    removed: tuple[Identity, ...] = ()


def deliver_change(change: ObjectChange, received_at: float, deliver: Deliver) -> None:
    """`received_at` is time.monotonic() when the event reached us."""
    # New objects before removals, so that a backend that moves leaves no gap.
    for found in change.upserted:
        deliver(Upserted(found, received_at))
    for _, key in change.removed:
        deliver(Removed(key, received_at))
