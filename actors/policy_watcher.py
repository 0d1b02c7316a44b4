"""PolicyWatcher: owns what is known of policies, of both kinds; tells ConflictResolver of each."""

from __future__ import annotations

from typing import ClassVar

from actors.messages import PolicyRemoved, PolicyUpserted, SourceName
from actors.watcher import Watcher
from k8s.objects import Policy, PolicyKey
from k8s.source import Removed, Upserted


class PolicyWatcher(Watcher):
    SOURCE: ClassVar[SourceName] = SourceName.POLICIES

    def tell_upserted(self, event: Upserted) -> None:
        if isinstance(event.object, Policy):
            fact = PolicyUpserted(policy=event.object, generation=event.generation, received_at=event.received_at)
            self.send("ConflictResolver", fact)

    def tell_removed(self, event: Removed) -> None:
        if isinstance(event.key, PolicyKey):
            self.send("ConflictResolver", PolicyRemoved(key=event.key, received_at=event.received_at))
