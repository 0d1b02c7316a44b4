"""What each policy claims, and which policies lose to an older one (rule P8). Pure.

The agent and the controller decide with this over all policies that exist (`actors.resolving.conflict`), and `validate`
over the manifests that it is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from config.domain.addresses import Frontend
from config.domain.ids import NamespacedName, PolicyKey, PolicyKind
from k8s.objects.model import Policy, ServiceFrontend

Claim: TypeAlias = NamespacedName | Frontend | int
"""A Service that is matched, a frontend, or a policy id (`serviceId`)."""
Age: TypeAlias = tuple[str, str, str]


class Loss(NamedTuple):
    """Why a policy is out of force: another policy, which is in force, holds `claim`."""

    winner: PolicyKey
    claim: Claim

    @property
    def what(self) -> str:
        if isinstance(self.claim, NamespacedName):
            return f"Service {self.claim}"
        return f"serviceId {self.claim}" if isinstance(self.claim, int) else f"frontend {self.claim}"


@dataclass(frozen=True, slots=True)
class Claimant:
    age: Age
    claims: frozenset[Claim]


def age(policy: Policy) -> Age:
    """A sort key that puts older policies first: by creation time (a policy without one counts as the oldest), then
    name, then kind."""
    return policy.created_at, policy.key.name, policy.key.kind


def claims_of(policy: Policy, frontends: Iterable[Frontend]) -> frozenset[Claim]:
    """What a policy with these frontends claims for itself; nothing while it is invalid or disabled."""
    spec = policy.spec
    if spec is None or not spec.enabled:
        return frozenset()
    claims: set[Claim] = set(frontends)
    if isinstance(spec.frontend, ServiceFrontend):
        claims.add(spec.frontend.service)
    if policy.key.kind == PolicyKind.LOCAL_REDIRECT:
        claims.add(policy.policy_id)
    return frozenset(claims)


def decide_losses(claimants: Mapping[PolicyKey, Claimant]) -> dict[PolicyKey, tuple[Loss, ...]]:
    """The policies that are out of force, oldest first, each with everything that it lost.

    Policies are decided from the oldest to the youngest, and only one that is in force keeps others out. The loss of a
    Service comes before other losses, since it explains most.
    """
    held: dict[Claim, PolicyKey] = {}
    losses: dict[PolicyKey, tuple[Loss, ...]] = {}
    for key, claimant in sorted(claimants.items(), key=lambda item: item[1].age):
        lost = claimant.claims & held.keys()
        if lost:
            losses[key] = tuple(Loss(held[claim], claim) for claim in sorted(lost, key=_service_first))
        else:
            held |= dict.fromkeys(claimant.claims, key)
    return losses


def _service_first(claim: Claim) -> tuple[bool, str]:
    return not isinstance(claim, NamespacedName), str(claim)
