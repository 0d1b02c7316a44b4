"""What the watchers are asked to report: ConflictResolver -> watchers."""

from __future__ import annotations

from dataclasses import dataclass

from actors.framework.messages import Message
from config.domain.ids import NamespacedName
from k8s.objects.model import PodQuery

WATCHERS = ("PolicyWatcher", "ServiceWatcher", "EndpointWatcher")
"""The actors that read a source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchServices(Message):
    """ConflictResolver -> ServiceWatcher: report these Services, which are all that policies name, and no others."""

    names: frozenset[NamespacedName]
    revision: int
    """Grows with each request. SourceSynced carries it back when the source covers the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchPods(Message):
    """ConflictResolver -> EndpointWatcher, in the controller: report the Pods that these queries find, and no others.

    The queries are those of all policies.
    """

    queries: frozenset[PodQuery]
    revision: int
    """As in WatchServices."""
