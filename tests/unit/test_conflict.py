"""Rule P8: who keeps whom out, in whatever order it is learnt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.conflict import Age, ClaimIndex
from k8s.objects import PolicyKey, PolicyKind

OLD, NEW, NEWEST = (PolicyKey(PolicyKind.LOCAL_REDIRECT, name) for name in ("a", "b", "c"))
AGES: dict[PolicyKey, Age] = {key: (str(i), key.name, key.kind) for i, key in enumerate((OLD, NEW, NEWEST))}


def test_the_older_of_two_wins_and_the_other_takes_over_when_it_goes() -> None:
    index = ClaimIndex()
    assert index.claim(NEW, AGES[NEW], frozenset({1})) == set()
    assert index.claim(OLD, AGES[OLD], frozenset({1})) == {NEW}
    loss = index.loss_of(NEW)
    assert loss
    assert loss.winner == OLD
    assert index.claim(OLD, AGES[OLD], frozenset()) == {NEW}
    assert index.loss_of(NEW) is None


def test_a_policy_that_is_out_of_force_keeps_nobody_out() -> None:
    index = ClaimIndex()
    index.claim(OLD, AGES[OLD], frozenset({1}))
    index.claim(NEW, AGES[NEW], frozenset({1, 2}))
    index.claim(NEWEST, AGES[NEWEST], frozenset({2}))
    assert index.loss_of(NEW)
    assert index.loss_of(NEWEST) is None


CLAIMS = st.frozensets(st.integers(1, 6), max_size=3)
STEPS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4), CLAIMS), max_size=40)


@given(STEPS)
def test_every_history_ends_as_deciding_all_at_once_would(steps: list[tuple[int, int, frozenset[int]]]) -> None:
    index = ClaimIndex()
    now: dict[PolicyKey, tuple[Age, frozenset[int]]] = {}
    losers: set[PolicyKey] = set()
    for number, created, claims in steps:
        key = PolicyKey(PolicyKind.LOCAL_REDIRECT, str(number))
        age = (str(created), key.name, key.kind)
        changed = index.claim(key, age, claims)
        now[key] = age, claims
        before, losers = losers, _greedy(now)
        assert {each for each in now if index.loss_of(each)} == losers
        assert before ^ losers <= changed, "who changed sides is told"


def _greedy(claimants: dict[PolicyKey, tuple[Age, frozenset[int]]]) -> set[PolicyKey]:
    held: set[int] = set()
    losers = set()
    for _, key in sorted((age, key) for key, (age, _) in claimants.items()):
        claims = claimants[key][1]
        if claims & held:
            losers.add(key)
        else:
            held |= claims
    return losers
