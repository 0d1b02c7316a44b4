"""Which policies keep which others out of force (rule P8). Pure.

Policies are decided oldest first, and only one that is in force keeps others out. The outcome depends on what is
claimed, never on the order in which it was learnt. A change recomputes the policies that are connected with it by
claims, no more, and a thousand changes at once recompute each of them once.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from config.domain.addresses import Frontend
from config.domain.ids import NamespacedName, PolicyKey
from k8s.objects.model import Policy

Claim: TypeAlias = NamespacedName | Frontend | int
"""A Service that is matched, a frontend, or a policy id."""
Age: TypeAlias = tuple[str, str, str]


class Loss(NamedTuple):
    """Why a policy is out of force: another in force holds `claim`."""

    winner: PolicyKey
    claim: Claim

    @property
    def what(self) -> str:
        if isinstance(self.claim, NamespacedName):
            return f"Service {self.claim}"
        return f"serviceId {self.claim}" if isinstance(self.claim, int) else f"frontend {self.claim}"


def age(policy: Policy) -> Age:
    """Sorts older first: creation time (none counts as oldest), then name, then kind."""
    return policy.created, policy.key.name, policy.key.kind


@dataclass(frozen=True, slots=True)
class _Claimant:
    age: Age
    claims: frozenset[Claim]


class ClaimIndex:
    """Claims by policy, and who loses to whom: call `claim` for what changed, then `settle` once."""

    def __init__(self) -> None:
        self._claimants: dict[PolicyKey, _Claimant] = {}
        self._holders: defaultdict[Claim, set[PolicyKey]] = defaultdict(set)
        self._losses: dict[PolicyKey, Loss] = {}
        self._unsettled: set[PolicyKey] = set()
        self._touched: set[Claim] = set()
        """Claimed or let go since the outcomes were settled."""

    def loss_of(self, key: PolicyKey) -> Loss | None:
        return self._losses.get(key)

    @property
    def losers(self) -> int:
        return len(self._losses)

    def claim(self, key: PolicyKey, order: Age, claims: frozenset[Claim]) -> None:
        """Replaces what a policy claims; nothing: an empty set."""
        former = self._claimants.pop(key, None)
        present = _Claimant(order, claims) if claims else None
        if present:
            self._claimants[key] = present
        if former == present:
            return
        for claim in former.claims if former else ():
            self._holders[claim].discard(key)
            if not self._holders[claim]:
                del self._holders[claim]
        for claim in claims:
            self._holders[claim].add(key)
        self._unsettled.add(key)
        self._touched |= claims | (former.claims if former else frozenset())

    def settle(self) -> set[PolicyKey]:
        """Decides anew what the claims since the last call may concern. Returns the policies whose outcome changed."""
        concerned = self._unsettled | self._connected(self._touched)
        self._unsettled, self._touched = set(), set()
        return self._decide(concerned)

    def _connected(self, claims: set[Claim]) -> set[PolicyKey]:
        """All that hold one of these, or share a claim with one that does, and so on."""
        found: set[PolicyKey] = set()
        seen = claims & self._holders.keys()
        waiting = list(seen)
        while waiting:
            for key in self._holders[waiting.pop()] - found:
                found.add(key)
                fresh = self._claimants[key].claims - seen
                seen |= fresh
                waiting += fresh
        return found

    def _decide(self, keys: set[PolicyKey]) -> set[PolicyKey]:
        changed: set[PolicyKey] = set()
        held: dict[Claim, PolicyKey] = {}
        claimants = [(self._claimants[key].age, key) for key in keys & self._claimants.keys()]
        losses: dict[PolicyKey, Loss] = {}
        for _, key in sorted(claimants):
            claims = self._claimants[key].claims
            lost = claims & held.keys()
            if lost:
                claim = min(lost, key=lambda each: (not isinstance(each, NamespacedName), str(each)))
                losses[key] = Loss(held[claim], claim)
            else:
                held |= dict.fromkeys(claims, key)
        for key in keys:
            if losses.get(key) != self._losses.get(key):
                changed.add(key)
                self._losses.pop(key, None)
                if key in losses:
                    self._losses[key] = losses[key]
        return changed
