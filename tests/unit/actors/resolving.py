"""ConflictResolver, as its tests run it: with peers that record what it sends."""

from __future__ import annotations

from typing import Any

from actors.framework.messages import Message
from actors.messages.desired import ApplyDesiredState
from actors.messages.facts import (
    NodeUpserted,
    PodUpserted,
    PolicyUpserted,
    ServiceUpserted,
    SourceName,
    SourceSynced,
)
from actors.messages.reports import PoliciesResolved, PolicyState
from actors.messages.subscriptions import WatchServices
from actors.resolving.agent_decision import AgentDecision
from actors.resolving.conflict_resolver import ConflictResolver
from actors.resolving.decision import Decision
from actors.resolving.subscriptions import Subscriptions
from config.settings import DatapathSettings, RedirectSettings
from k8s.objects.model import Node, Pod, Policy, Service
from tests.unit.peers import Peer, fence

AT = 1.5
"""Time at which the facts of these tests were received."""


def fact(thing: Policy | Service | Pod | Node, listing: int = 1) -> Message:
    match thing:
        case Policy():
            return PolicyUpserted(policy=thing, listing=listing, received_at=AT)
        case Service():
            return ServiceUpserted(service=thing, listing=listing, received_at=AT)
        case Pod():
            return PodUpserted(pod=thing, listing=listing, received_at=AT)
        case Node():
            return NodeUpserted(node=thing, listing=listing, received_at=AT)


class Resolving:
    """A resolver, and peers that record what they hear."""

    def __init__(self, decision: Decision[Any] | None = None, subscriptions: Subscriptions | None = None) -> None:
        self.watchers = {name: Peer(name) for name in ("PolicyWatcher", "ServiceWatcher", "EndpointWatcher")}
        self.writer = Peer("MapWriter")
        self.reporters = [Peer("StatusReporter"), Peer("MetricsExporter")]
        decision = decision or AgentDecision(RedirectSettings())
        self.ref = ConflictResolver.start(
            datapath=DatapathSettings(),
            redirect=RedirectSettings(),
            decision=decision,
            subscriptions=subscriptions or Subscriptions(),
        )
        self._revision = 0

    def tell(self, *messages: Message) -> None:
        """Returns when they are handled, and when the decisions that they caused have been sent."""
        for message in messages:
            self.ref.tell(message)
        fence(self.ref)  # the facts, behind which a Flush may queue
        fence(self.ref)  # the Flush

    def sync(self, *sources: SourceName) -> None:
        """Ends a listing of each source. The one of Services covers the newest subscription."""
        for source in sources or SourceName:
            revision = self.revision() if source == SourceName.SERVICES else 0
            self.tell(SourceSynced(source=source, listing=1, revision=revision))

    def revision(self) -> int:
        """Revision of the newest WatchServices; 0 when there was none."""
        self.subscriptions()
        return self._revision

    def subscriptions(self) -> list[WatchServices]:
        """Those that were sent since the last call."""
        found = [each for each in self.watchers["ServiceWatcher"].heard() if isinstance(each, WatchServices)]
        self._revision = found[-1].revision if found else self._revision
        return found

    def applied(self) -> list[ApplyDesiredState]:
        heard = self.writer.heard()
        assert all(isinstance(each, ApplyDesiredState) for each in heard)
        return [each for each in heard if isinstance(each, ApplyDesiredState)]

    def resolved(self) -> list[PoliciesResolved]:
        """Both reporters hear the same."""
        first, second = (peer.heard() for peer in self.reporters)
        assert first == second
        return [each for each in first if isinstance(each, PoliciesResolved)]

    def states(self) -> list[dict[str, PolicyState]]:
        return [{each.key.name: each.state for each in message.conditions} for message in self.resolved()]

    def open(self, *facts: Policy | Service | Pod | Node) -> None:
        """Syncs all sources, with these facts, and drops the messages that this causes."""
        self.tell(*(fact(each) for each in facts if not isinstance(each, Service)))
        self.sync(SourceName.POLICIES, SourceName.ENDPOINTS)
        self.tell(*(fact(each) for each in facts if isinstance(each, Service)))
        self.sync(SourceName.SERVICES)
        (first,) = self.applied()
        assert first.complete
        self.resolved()
