"""PolicyWatcher: reports the policies of both kinds to ConflictResolver.

In the controller it also sends PolicyStatusSeen and PolicyStatusGone (StatusWriter). No decision depends on a policy's
status, so the policy goes to ConflictResolver without it, and the controller's own writes do not cause new decisions.
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

    def report_upserted(self, event: Upserted, listing: int) -> None:
        policy = event.object
        if not isinstance(policy, Policy):
            return
        if policy.status is not None:
            self.send("StatusWriter", PolicyStatusSeen(key=policy.key, uid=policy.uid, status=policy.status))
            policy = replace(policy, status=None)
        fact = PolicyUpserted(policy=policy, listing=listing, received_at=event.received_at)
        self.send("ConflictResolver", fact)

    def report_removed(self, event: Removed) -> None:
        if isinstance(event.key, PolicyKey):
            self.send("StatusWriter", PolicyStatusGone(key=event.key))
            self.send("ConflictResolver", PolicyRemoved(key=event.key, received_at=event.received_at))
