"""Rule P8: which policy wins a conflict, in whatever order the policies become known."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.resolving.conflict import ClaimIndex
from config.domain.addresses import Frontend, Protocol
from config.domain.ids import NamespacedName, PolicyKey, PolicyKind
from k8s.objects.claims import Age, Claim, Loss, age
from k8s.objects.model import Policy

DNS = NamespacedName("kube-system", "kube-dns")
WEB = NamespacedName("default", "web")
VIP = Frontend(ip_address("169.254.0.90"), 53, Protocol.UDP)
VIP_TCP = VIP._replace(protocol=Protocol.TCP)


def key(name: str, kind: PolicyKind = PolicyKind.LOCAL_REDIRECT) -> PolicyKey:
    return PolicyKey(kind, name)


@dataclass(frozen=True)
class Claimant:
    name: str
    claims: frozenset[Claim]
    created: str = ""
    kind: PolicyKind = PolicyKind.LOCAL_REDIRECT
    key: PolicyKey = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", key(self.name, self.kind))

    @property
    def age(self) -> Age:
        return age(Policy(key=self.key, policy_id=1, created_at=self.created, spec=None))


def claimant(name: str, *claims: Claim, created: str = "", kind: PolicyKind = PolicyKind.LOCAL_REDIRECT) -> Claimant:
    return Claimant(name, frozenset(claims), created, kind)


def index_of(*claimants: Claimant) -> ClaimIndex:
    index = ClaimIndex()
    for each in claimants:
        index.claim(each.key, each.age, each.claims)
        index.settle()
    return index


def losses(index: ClaimIndex, claimants: tuple[Claimant, ...] | list[Claimant]) -> dict[PolicyKey, Loss]:
    found = {each.key: index.loss_of(each.key) for each in claimants}
    return {key: loss for key, loss in found.items() if loss}


CASES = {
    "nothing in common": ((claimant("a", DNS, VIP, 1), claimant("b", WEB, VIP_TCP, 2)), {}),
    "the same Service": ((claimant("a", DNS, 1), claimant("b", DNS, 2)), {"b": ("a", DNS)}),
    "the same frontend": ((claimant("a", VIP, 1), claimant("b", VIP, 2)), {"b": ("a", VIP)}),
    "another protocol is another frontend": ((claimant("a", VIP, 1), claimant("b", VIP_TCP, 2)), {}),
    "the same policy id": ((claimant("a", 7), claimant("b", 7)), {"b": ("a", 7)}),
    "older by creation, not by name": (
        (claimant("a", DNS, created="2026-01-02T00:00:00Z"), claimant("b", DNS, created="2026-01-01T00:00:00Z")),
        {"a": ("b", DNS)},
    ),
    "no creation time is oldest": (
        (claimant("a", DNS, created="2026-01-01T00:00:00Z"), claimant("b", DNS)),
        {"a": ("b", DNS)},
    ),
    "a Service is named before a frontend and a number": (
        (claimant("a", DNS, VIP, 1), claimant("b", DNS, VIP, 1)),
        {"b": ("a", DNS)},
    ),
    "a loser keeps nobody out": (
        (claimant("a", DNS), claimant("b", DNS, VIP), claimant("c", VIP)),
        {"b": ("a", DNS)},
    ),
    "one may hold out many": (
        (claimant("a", DNS, VIP), claimant("b", DNS), claimant("c", VIP)),
        {"b": ("a", DNS), "c": ("a", VIP)},
    ),
    "a BalancingPolicy holds what it claims": (
        (claimant("a", DNS, kind=PolicyKind.BALANCING), claimant("b", DNS)),
        {"b": ("a", DNS)},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_p8_the_older_policy_wins_in_whatever_order_they_become_known(case: str) -> None:
    claimants, expected = CASES[case]
    for order in itertools.permutations(claimants):
        found = losses(index_of(*order), claimants)
        assert {loser.name: (loss.winner.name, loss.claim) for loser, loss in found.items()} == expected


def test_p8_of_two_kinds_with_one_name_and_age_all_nodes_choose_the_same() -> None:
    both = [claimant("a", DNS, kind=kind) for kind in PolicyKind]
    for order in (both, both[::-1]):
        (loser,) = losses(index_of(*order), both)
        assert loser.kind == PolicyKind.LOCAL_REDIRECT


@pytest.mark.parametrize(
    ("claim", "what"),
    [
        (DNS, "Service kube-system/kube-dns"),
        (VIP, "frontend 169.254.0.90:53/UDP"),
        (7, "serviceId 7"),
    ],
)
def test_a_loss_names_what_is_claimed(claim: Claim, what: str) -> None:
    assert Loss(key("a"), claim).what == what


def test_p8_the_loser_takes_over_when_the_winner_goes_and_both_are_reported() -> None:
    winner, loser = claimant("a", DNS), claimant("b", DNS)
    index = index_of(winner, loser)
    assert index.losers == 1
    index.claim(winner.key, winner.age, frozenset())
    assert index.settle() == {loser.key}
    assert index.losers == 0


def test_p8_a_chain_of_conflicts_is_decided_again_as_a_whole() -> None:
    chain = [claimant("a", 1), claimant("b", 1, 2), claimant("c", 2, 3), claimant("d", 3)]
    index = index_of(*chain)
    assert set(losses(index, chain)) == {key("b"), key("d")}
    index.claim(key("a"), chain[0].age, frozenset())
    assert index.settle() == {key("b"), key("c"), key("d")}
    assert set(losses(index, chain)) == {key("c")}


def test_a_change_that_concerns_no_conflict_reports_nothing() -> None:
    winner, loser = claimant("a", DNS), claimant("b", DNS)
    index = index_of(winner, loser)
    index.claim(winner.key, winner.age, winner.claims)
    assert index.settle() == set()
    index.claim(key("stranger"), ("", "stranger", ""), frozenset())
    assert index.settle() == set()


def test_a_thousand_policies_that_claim_one_thing_are_settled_together() -> None:
    index = ClaimIndex()
    began = time.process_time()
    for number in range(1000):
        each = claimant(f"p{number:04}", DNS, number)
        index.claim(each.key, each.age, each.claims)
    index.settle()
    assert index.losers == 999
    assert time.process_time() - began < 1.0  # quadratic work takes longer


CLAIMS = [DNS, WEB, VIP, VIP_TCP, 1, 2, 3]
CLAIMANTS = st.builds(
    Claimant,
    name=st.sampled_from("abcdef"),
    claims=st.frozensets(st.sampled_from(CLAIMS), max_size=3),
    created=st.sampled_from(["", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]),
    kind=st.sampled_from(PolicyKind),
)


def losers_of(claimants: list[Claimant]) -> set[PolicyKey]:
    """Rule P8, literally: oldest first, a policy is in force unless a policy in force holds what it claims."""
    in_force: list[Claimant] = []
    for each in sorted(claimants, key=lambda one: (one.age, one.key)):
        if not any(other.claims & each.claims for other in in_force):
            in_force.append(each)
    return {each.key for each in claimants} - {each.key for each in in_force}


@given(st.lists(CLAIMANTS, max_size=12), st.lists(st.booleans(), min_size=12, max_size=12))
def test_p8_any_history_ends_in_the_same_state_as_deciding_from_scratch(
    history: list[Claimant], settles: list[bool]
) -> None:
    index = ClaimIndex()
    present: dict[PolicyKey, Claimant] = {}
    reported: dict[PolicyKey, Loss | None] = {}
    for each, settle in zip(history, settles, strict=False):
        index.claim(each.key, each.age, each.claims)
        present[each.key] = each
        if settle:
            reported |= {changed: index.loss_of(changed) for changed in index.settle()}
    reported |= {changed: index.loss_of(changed) for changed in index.settle()}

    expected = losers_of(list(present.values()))
    found = losses(index, list(present.values()))
    assert found.keys() == expected
    assert index.losers == len(expected)
    # The reported changes add up to the present state.
    assert {key: loss for key, loss in reported.items() if loss} == found
    for loser, loss in found.items():
        assert loss.winner not in found
        assert loss.claim in present[loss.winner].claims & present[loser].claims
