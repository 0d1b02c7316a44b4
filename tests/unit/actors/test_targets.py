"""Which Pods are checked, what results mean (rule P19), and what ConflictResolver is sent again."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.health.targets import CHANGE_SECONDS, Selection, Target, Targets
from actors.messages.checks import ChecksSelected, HealthChanged, PolicyChecks
from config.domain.checks import HealthCheck, TcpProbe
from config.domain.ids import PolicyKey, PolicyKind
from tests.unit.actors.checks import CHECK, checked, policy_checks
from tests.unit.objects import KEY

OTHER = PolicyKey(PolicyKind.LOCAL_REDIRECT, "other")
WHY = "its dns check of port 53 failed: no answer"


def target(*, why_out_of_use: str = "", check: HealthCheck = CHECK) -> Target:
    return Target(policy=KEY, check=check, pod=checked(), why_out_of_use=why_out_of_use)


def results(subject: Target, text: str, *, begin: float = 0.0, every: float = 1.0) -> str:
    """Of each result (`+` a success, `-` a failure) whether the Pod is in use afterwards."""
    states = ""
    for number, letter in enumerate(text):
        subject.add_result("no answer" if letter == "-" else "", begin + number * every)
        states += "-" if subject.why_out_of_use else "+"
    return states


@pytest.mark.parametrize(
    ("failures", "successes", "seen", "states"),
    [
        (2, 1, "+-+--+", "++++-+"),
        (1, 1, "-+-+", "-+-+"),
        (3, 2, "----+-++-", "++-----++"),
        (2, 3, "--++-+++", "+------+"),
    ],
)
def test_p19_results_in_a_row_put_a_pod_out_and_bring_it_back(
    failures: int, successes: int, seen: str, states: str
) -> None:
    check = replace(CHECK, failure_threshold=failures, success_threshold=successes)
    assert results(target(check=check), seen) == states


def test_before_the_first_result_a_pod_counts_as_it_was_known() -> None:
    assert target().why_out_of_use == ""
    assert results(target(why_out_of_use=WHY), "-+") == "-+"


def test_the_finding_says_what_the_check_saw_when_it_put_the_pod_out() -> None:
    subject = target()
    subject.add_result("no answer", 1.0)
    assert subject.add_result("Connection refused", 2.0)
    assert not subject.add_result("no answer", 3.0)
    assert subject.finding(3.0) == HealthChanged(
        policy=KEY,
        check=CHECK,
        pod=checked().key,
        uid="uid-a",
        why_out_of_use="its dns check of port 53 failed: Connection refused",
        received_at=3.0,
    )


@given(st.lists(st.booleans(), max_size=200), st.sampled_from([0.01, 0.05, 0.3]))
def test_a_pod_that_flaps_changes_once_a_second_at_most(seen: list[bool], every: float) -> None:
    subject = target(check=replace(CHECK, failure_threshold=1))
    changes = [
        number * every
        for number, failed in enumerate(seen)
        if subject.add_result("no answer" if failed else "", number * every)
    ]
    assert all(later - earlier > CHANGE_SECONDS - 1e-9 for earlier, later in pairwise(changes))


def test_a_change_that_was_held_back_takes_effect_with_the_next_result_after_that_second() -> None:
    subject = target()
    assert results(subject, "--+++++++++++", every=0.1) == "+----------++"


def select(
    targets: Targets, *policies: PolicyChecks, complete: bool = False, removed: tuple[PolicyKey, ...] = ()
) -> Selection:
    return targets.select(ChecksSelected(complete=complete, policies=policies, removed=removed))


def names(found: list[Target]) -> list[str]:
    return [f"{each.policy.name}/{each.pod.key.name}" for each in found]


def test_pods_that_stay_go_on_and_the_others_begin_and_end() -> None:
    targets = Targets()
    assert names(select(targets, policy_checks(checked("a"), checked("b")), complete=True).begun) == ["p/a", "p/b"]
    change = select(targets, policy_checks(checked("b"), checked("c")))
    assert (names(change.begun), names(change.ended), change.disputed) == (["p/c"], ["p/a"], [])


@pytest.mark.parametrize(
    "successor",
    [
        policy_checks(checked(uid="another")),
        policy_checks(replace(checked(), address=ip_address("10.1.0.2"))),
        policy_checks(checked(), check=replace(CHECK, interval=2.0)),
        policy_checks(checked(), check=replace(CHECK, probe=TcpProbe())),
    ],
    ids=["uid", "address", "interval", "kind"],
)
def test_another_pod_or_another_check_begins_as_if_nothing_had_failed(successor: PolicyChecks) -> None:
    targets = Targets()
    (former,) = select(targets, policy_checks(checked())).begun
    former.why_out_of_use = WHY
    change = select(targets, successor)
    assert change.ended == [former]
    (begun,) = change.begun
    assert (begun.why_out_of_use, begun.streak) == ("", 0)


def test_policies_that_a_complete_message_does_not_name_end_and_so_do_removed_ones_and_those_without_pods() -> None:
    for change in (
        {"complete": True},
        {"removed": (KEY,)},
        {"policies": (PolicyChecks(key=KEY),)},
    ):
        targets = Targets()
        select(targets, policy_checks(checked()))
        message = ChecksSelected(**{"complete": False, **change})  # type: ignore[arg-type]
        assert names(targets.select(message).ended) == ["p/a"]
        assert targets._of_policy == {}


def test_two_policies_check_one_pod_independently() -> None:
    targets = Targets()
    begun = select(targets, policy_checks(checked()), policy_checks(checked(), key=OTHER)).begun
    assert names(begun) == ["p/a", "other/a"]
    assert names(select(targets, removed=(OTHER,)).ended) == ["other/a"]


def test_a_checker_that_was_restarted_begins_with_what_the_resolver_knows() -> None:
    (begun,) = select(Targets(), policy_checks(checked(why_out_of_use=WHY)), complete=True).begun
    assert begun.why_out_of_use == WHY


def test_a_resolver_that_was_restarted_is_sent_what_it_does_not_know() -> None:
    targets = Targets()
    failing, healthy = select(targets, policy_checks(checked("a"), checked("b")), complete=True).begun
    failing.why_out_of_use = WHY
    change = select(targets, policy_checks(checked("a"), checked("b")), complete=True)
    assert (change.begun, change.ended, change.disputed) == ([], [], [failing])
    change = select(targets, policy_checks(checked("a", why_out_of_use=WHY), checked("b", why_out_of_use=WHY)))
    assert change.disputed == [healthy]
