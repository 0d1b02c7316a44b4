"""Rule P8: what policies claim, and who loses to whom."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from config.domain.addresses import Frontend, Protocol
from config.domain.ids import PolicyKey, PolicyKind
from k8s.objects.claims import Claim, Claimant, Loss, age, claims_of, decide_losses
from k8s.objects.model import Policy
from tests.unit.objects import NAME, address_spec, policy, service_spec

FRONTEND = Frontend(ip_address("169.254.20.10"), 53, Protocol.UDP)


def key(name: str) -> PolicyKey:
    return PolicyKey(PolicyKind.LOCAL_REDIRECT, name)


def claimants(**claims: set[Claim]) -> dict[PolicyKey, Claimant]:
    """Claimants with these names, which are their ages as well."""
    return {key(name): Claimant(("", name, ""), frozenset(found)) for name, found in claims.items()}


def test_a_policy_claims_its_service_its_frontends_and_its_number() -> None:
    assert claims_of(policy(service_spec()), [FRONTEND]) == {NAME, FRONTEND, 7}
    assert claims_of(policy(address_spec()), [FRONTEND]) == {FRONTEND, 7}


def test_a_balancing_policy_claims_no_number() -> None:
    assert claims_of(policy(service_spec(), kind=PolicyKind.BALANCING), [FRONTEND]) == {NAME, FRONTEND}


def test_an_invalid_or_disabled_policy_claims_nothing() -> None:
    assert claims_of(policy(None), [FRONTEND]) == frozenset()
    assert claims_of(policy(replace(service_spec(), enabled=False)), [FRONTEND]) == frozenset()


def test_older_is_by_creation_then_name_then_kind_and_no_creation_is_oldest() -> None:
    def named(name: str, created: str = "", kind: PolicyKind = PolicyKind.LOCAL_REDIRECT) -> Policy:
        return policy(None, name=name, created=created, kind=kind)

    by_age = [
        named("z"),
        named("z", "2026-01-01T00:00:00Z", PolicyKind.BALANCING),
        named("z", "2026-01-01T00:00:00Z"),
        named("a", "2026-01-02T00:00:00Z"),
    ]
    mixed = [by_age[2], by_age[0], by_age[3], by_age[1]]
    assert sorted(mixed, key=age) == by_age


def test_every_claim_that_is_lost_is_reported_the_service_first() -> None:
    lost = decide_losses(claimants(a={FRONTEND, 7}, b={NAME}, c={NAME, FRONTEND, 7}))
    assert lost == {key("c"): (Loss(key("b"), NAME), Loss(key("a"), FRONTEND), Loss(key("a"), 7))}


def test_only_a_policy_in_force_keeps_others_out() -> None:
    assert decide_losses(claimants(a={1}, b={1, 2}, c={2})) == {key("b"): (Loss(key("a"), 1),)}
