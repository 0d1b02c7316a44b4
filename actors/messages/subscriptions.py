"""What the watchers are asked to tell: ConflictResolver, MapWriter -> watchers."""

from __future__ import annotations

from dataclasses import dataclass

from actors.framework.messages import Message
from config.domain.ids import NamespacedName
from k8s.objects.model import PodQuery


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchServices(Message):
    """ConflictResolver -> ServiceWatcher: the Services that policies name, all of them."""

    names: frozenset[NamespacedName]
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchPods(Message):
    """ConflictResolver -> EndpointWatcher, in the controller: the Pods that policies select, by all their selectors."""

    queries: frozenset[PodQuery]
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResyncSource(Message):
    """To a watcher: tell everything again, under a new generation.

    By whoever lost its facts (a restarted resolver), and by MapWriter, whose lease ran out: then what is told must have
    been read at `since` or later.
    """

    since: float = 0.0
    """time.monotonic(); 0: as it is known."""
