"""Facts in any order lead to one desired state; what a newer listing does not tell is gone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import pytest

from actors.messages import PolicyState, SourceName
from actors.resolver_state import ResolverState
from config.settings import DatapathSettings, RedirectSettings
from k8s.objects import PolicyKey, PolicyKind
from tests.unit.objects import SERVICE, address, of_service, pod, policy, port, service

REDIRECT = RedirectSettings()
FACTS: dict[str, Callable[[ResolverState], None]] = {
    "policy": lambda state: state.upsert_policy(policy(frontend=of_service()), 1),
    "service": lambda state: state.upsert_service(service(), 1),
    "pod": lambda state: state.upsert_pod(pod(), 1),
}


def fresh(redirect: RedirectSettings = REDIRECT) -> ResolverState:
    return ResolverState(datapath=DatapathSettings(), redirect=redirect)


@pytest.mark.parametrize("order", list(permutations(FACTS)), ids="-".join)
def test_facts_in_every_order_give_the_same(order: tuple[str, ...]) -> None:
    state = fresh()
    for name in order:
        FACTS[name](state)
        state.decide_changes()
    (found,) = state.all_outcomes()
    assert found.condition.state == PolicyState.ACTIVE
    assert [str(each.frontend) for each in found.desired.frontends] == ["10.96.0.10:53/UDP"]


def test_what_a_newer_listing_does_not_tell_is_gone() -> None:
    state = fresh()
    for tell in FACTS.values():
        tell(state)
    state.decide_changes()
    state.end_listing(SourceName.ENDPOINTS, 2)
    assert state.decide_changes().outcomes[0].condition.state == PolicyState.NO_BACKEND
    state.end_listing(SourceName.POLICIES, 2)
    assert state.decide_changes().removed == (policy().key,)


def test_an_unchanged_fact_changes_nothing() -> None:
    state = fresh()
    for _ in range(2):
        for tell in FACTS.values():
            tell(state)
        changes = state.decide_changes()
    assert changes.outcomes == ()


def test_a_pod_that_is_relabelled_leaves_its_policy() -> None:
    state = fresh()
    for tell in FACTS.values():
        tell(state)
    state.decide_changes()
    state.upsert_pod(pod(labels=frozenset({("app", "other")})), 1)
    assert state.decide_changes().outcomes[0].condition.state == PolicyState.NO_BACKEND


@pytest.mark.parametrize(
    ("spec", "allowed", "expected"),
    [
        ({"frontend": address()}, "*", ["a", "b"]),
        ({"frontend": address()}, "a", ["a"]),
        ({"frontend": address(), "backend_namespace": "b"}, "*", ["b"]),
        ({"frontend": of_service()}, "*", []),
        ({"frontend": of_service(), "backend_namespace": "a"}, "*", ["a"]),
    ],
    ids=["all", "allowed", "asked for", "the Service's own", "a Service policy asks"],
)
def test_p6_namespaces_of_the_backends(spec: dict[str, object], allowed: str, expected: list[str]) -> None:
    state = fresh(RedirectSettings(address_backend_namespaces=frozenset({allowed})))
    for namespace in "ab":
        state.upsert_pod(pod("p", namespace=namespace), 1)
    state.upsert_policy(policy(**spec), 1)  # type: ignore[arg-type]
    state.upsert_service(service(), 1)
    (found,) = state.decide_changes().outcomes
    assert [each.key.namespace for each in found.desired.excluded] == expected


def test_p8_a_balancing_policy_that_is_older_wins_and_has_no_condition() -> None:
    state = fresh()
    state.upsert_policy(policy("new", created="2026-01-01T00:00:00Z"), 1)
    state.upsert_policy(policy("old", kind=PolicyKind.BALANCING), 1)
    (found,) = state.decide_changes().outcomes
    assert found.condition.state == PolicyState.CONFLICT
    assert "BalancingPolicy old" in found.condition.message
    state.remove_policy(PolicyKey(PolicyKind.BALANCING, "old"))
    assert state.decide_changes().outcomes[0].condition.state == PolicyState.NO_BACKEND


def test_p8_two_policies_with_one_service_id_conflict() -> None:
    state = fresh()
    state.upsert_policy(policy("a", address(ip="10.1.1.1"), service_id=9), 1)
    state.upsert_policy(policy("b", address(ip="10.1.1.2"), service_id=9), 1)
    states = {each.condition.key.name: each.condition.state for each in state.decide_changes().outcomes}
    assert states == {"a": PolicyState.NO_BACKEND, "b": PolicyState.CONFLICT}


def test_services_that_are_named_no_more_are_forgotten() -> None:
    state = fresh()
    for tell in FACTS.values():
        tell(state)
    assert state.named_services == {SERVICE}
    state.upsert_policy(policy(frontend=address(port(53))), 1)
    assert state.named_services == frozenset()
