"""PolicyWatcher: owns what is known of policies, of both kinds; tells ConflictResolver of each.

Out, in the controller: PolicyStatusSeen, PolicyStatusGone (StatusWriter). A status is no fact that anything is decided
by: the policy goes on without it, and what comes back of our own writes ends here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from actors.messages.facts import PolicyRemoved, PolicyUpserted, SourceName
from actors.messages.verdicts import PolicyStatusGone, PolicyStatusSeen
from actors.watching.watcher import Watcher
from config.domain.ids import PolicyKey
from k8s.objects.model import Policy
from k8s.sources.source import Removed, Upserted


class PolicyWatcher(Watcher):
    SOURCE: ClassVar[SourceName] = SourceName.POLICIES

    def tell_upserted(self, event: Upserted) -> None:
        policy = event.object
        if not isinstance(policy, Policy):
            return
        if policy.status is not None:
            self.send("StatusWriter", PolicyStatusSeen(key=policy.key, uid=policy.uid, status=policy.status))
            policy = replace(policy, status=None)
        fact = PolicyUpserted(policy=policy, listing=event.listing, received_at=event.received_at)
        self.send("ConflictResolver", fact)

    def tell_removed(self, event: Removed) -> None:
        if isinstance(event.key, PolicyKey):
            self.send("StatusWriter", PolicyStatusGone(key=event.key))
            self.send("ConflictResolver", PolicyRemoved(key=event.key, received_at=event.received_at))
