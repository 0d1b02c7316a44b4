"""From facts to outcomes: which policy holds what, then what follows for each policy that may be affected. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

from actors.resolving.conflict import ClaimIndex
from actors.resolving.decision import Decision, T
from actors.resolving.facts import Facts
from actors.resolving.frontends import Frontends, find_frontends
from actors.resolving.policy_facts import PolicyFacts
from config.domain.ids import PolicyKey, PolicyKind
from config.settings import DatapathSettings, RedirectSettings
from k8s.objects.claims import age, claims_of
from k8s.objects.model import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes(Generic[T]):
    outcomes: tuple[T, ...]
    """The outcomes of LocalRedirectPolicies that differ from those that were returned before."""
    removed: tuple[PolicyKey, ...]


class ResolverState(Generic[T]):
    """Pass each fact to `facts`, then call `decide_changes` once."""

    def __init__(self, *, datapath: DatapathSettings, redirect: RedirectSettings, decision: Decision[T]) -> None:
        self.facts = Facts(counts_nodes=decision.counts_nodes)
        self._datapath = datapath
        self._redirect = redirect
        self._decision = decision
        self._claims = ClaimIndex()
        self._frontends: dict[PolicyKey, Frontends] = {}
        self._outcomes: dict[PolicyKey, T] = {}
        self._undecided: set[PolicyKey] = set()
        """Policies whose facts were not all known at the last `decide_changes`."""

    @property
    def conflicts(self) -> int:
        """Number of policies that are out of force because an older one holds what they claim."""
        return self._claims.losers

    def decide_changes(self, *, is_known: Callable[[Policy], bool] = lambda _policy: True) -> Changes[T]:
        """Decides the policies that the facts since the last call may concern. If `is_known` says that not all facts
        about a policy are known, the policy is left for a later call."""
        concerned = self._undecided | self.facts.take_concerned()
        for key in concerned:
            self._claim(key)
        concerned |= self._claims.settle()
        outcomes: list[T] = []
        removed: list[PolicyKey] = []
        undecided: set[PolicyKey] = set()
        for key in concerned:
            policy = self.facts.policy(key)
            if policy is None:
                if self._outcomes.pop(key, None):
                    removed.append(key)
            elif key.kind == PolicyKind.LOCAL_REDIRECT:
                if not is_known(policy):
                    undecided.add(key)
                    continue
                outcome = self._decide(policy)
                if outcome != self._outcomes.get(key):
                    self._outcomes[key] = outcome
                    outcomes.append(outcome)
        self._undecided = undecided
        return Changes(outcomes=tuple(outcomes), removed=tuple(removed))

    def all_outcomes(self) -> tuple[T, ...]:
        """Returns the outcomes of all policies, as of the last `decide_changes`."""
        return tuple(self._outcomes.values())

    def _claim(self, key: PolicyKey) -> None:
        policy = self.facts.policy(key)
        if policy is None:
            self._frontends.pop(key, None)
            self._claims.claim(key, ("", "", ""), frozenset())
            return
        self._frontends[key] = find_frontends(policy, self.facts.service_of(policy), self._datapath)
        self._claims.claim(key, age(policy), claims_of(policy, self._frontends[key].claimed))

    def _decide(self, policy: Policy) -> T:
        pods = list(self.facts.pods_of(policy, self._redirect))
        return self._decision.decide(
            PolicyFacts(
                policy=policy,
                frontends=self._frontends[policy.key],
                service=self.facts.service_of(policy),
                pods=pods,
                ended=self.facts.ended(pods),
                unhealthy=self.facts.unhealthy(policy, pods),
                nodes=self.facts.nodes,
                loss=self._claims.loss_of(policy.key),
            )
        )
