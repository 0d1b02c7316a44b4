"""Which policies lose a conflict, kept up to date as policies come, change and go (rule P8). Pure.

`k8s.objects.claims` has the rule. The outcome depends on what is claimed, never on the order in which it was heard.
After a change, only the policies that are linked to it by shared claims are decided again. If many changes come
together, each policy is still decided once.
"""

from __future__ import annotations

from collections import defaultdict

from config.domain.ids import PolicyKey
from k8s.objects.claims import Age, Claim, Claimant, Loss, decide_losses


class ClaimIndex:
    """Who claims what, and who loses to whom. Call `claim` for each policy that changed, then `settle` once."""

    def __init__(self) -> None:
        self._claimants: dict[PolicyKey, Claimant] = {}
        self._holders: defaultdict[Claim, set[PolicyKey]] = defaultdict(set)
        self._losses: dict[PolicyKey, Loss] = {}
        self._unsettled: set[PolicyKey] = set()
        self._touched: set[Claim] = set()
        """The claims that policies have made or dropped since the last `settle`."""

    def loss_of(self, key: PolicyKey) -> Loss | None:
        return self._losses.get(key)

    @property
    def losers(self) -> int:
        """Number of policies that lose a conflict."""
        return len(self._losses)

    def claim(self, key: PolicyKey, order: Age, claims: frozenset[Claim]) -> None:
        """Replaces what a policy claims. A policy that claims nothing has an empty set."""
        former = self._claimants.pop(key, None)
        present = Claimant(order, claims) if claims else None
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
        """Decides what the claims since the last call may affect. Returns the policies whose outcome changed."""
        concerned = self._unsettled | self._connected(self._touched)
        self._unsettled, self._touched = set(), set()
        return self._decide(concerned)

    def _connected(self, claims: set[Claim]) -> set[PolicyKey]:
        """Returns the policies that hold one of these claims, those that share a claim with one of them, and so on."""
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
        decided = decide_losses({key: self._claimants[key] for key in keys & self._claimants.keys()})
        losses = {key: lost[0] for key, lost in decided.items()}
        changed = {key for key in keys if losses.get(key) != self._losses.get(key)}
        for key in changed:
            self._losses.pop(key, None)
        self._losses |= losses
        return changed
