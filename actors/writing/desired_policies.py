"""What every existing policy asks of the kernel, as ConflictResolver sent it. Pure; MapWriter owns the instance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from actors.messages.desired import ApplyDesiredState, BackendPod, DesiredPolicy
from actors.writing.excluded_pods import names_of
from config.domain.ids import PolicyKey


class DesiredPolicies:
    def __init__(self) -> None:
        self._policies: dict[PolicyKey, DesiredPolicy] = {}
        self._by_id: defaultdict[int, set[PolicyKey]] = defaultdict(set)
        """Policy id -> the policies that have it. At most one of them is in force."""

    def apply(self, message: ApplyDesiredState) -> set[int]:
        """Returns the policy ids that the message affects."""
        affected: set[int] = set()
        if message.complete:
            affected |= self._by_id.keys()
            self._policies.clear()
            self._by_id.clear()
        for key in message.removed:
            affected |= self._drop(key)
        for policy in message.upserted:
            affected |= self._drop(policy.key)
            self._policies[policy.key] = policy
            self._by_id[policy.policy_id].add(policy.key)
            affected.add(policy.policy_id)
        return affected

    def _drop(self, key: PolicyKey) -> set[int]:
        former = self._policies.pop(key, None)
        if former is None:
            return set()
        keys = self._by_id[former.policy_id]
        keys.discard(key)
        if not keys:
            del self._by_id[former.policy_id]
        return {former.policy_id}

    def with_id(self, policy_id: int) -> Iterator[DesiredPolicy]:
        for key in self._by_id.get(policy_id, ()):
            yield self._policies[key]

    def in_force(self, policy_id: int) -> list[DesiredPolicy]:
        return [policy for policy in self.with_id(policy_id) if policy.in_force]

    def excluded(self, policy_id: int) -> Iterator[BackendPod]:
        """The Pods whose calls the policy in force does not redirect."""
        for policy in self.in_force(policy_id):
            yield from policy.excluded

    def excluding(self, names: frozenset[str]) -> set[int]:
        """Returns the ids of the policies in force that exclude a Pod with one of these uids or config hashes."""
        if not names:
            return set()
        return {
            policy_id
            for policy_id in self._by_id
            if any(not names.isdisjoint(names_of(pod)) for pod in self.excluded(policy_id))
        }
