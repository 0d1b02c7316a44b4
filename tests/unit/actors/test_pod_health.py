"""How findings about Pods (P18, P19) reach the outcome of policies, and when they stop to count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest

from actors.messages.backends import BackendsSelected, ContainersEnded
from actors.messages.checks import CheckedPod, ChecksSelected, HealthChanged, PolicyChecks
from actors.messages.reports import PolicyState
from actors.resolving.agent_decision import AgentDecision
from actors.resolving.decision import Decided
from actors.resolving.desired import Outcome
from actors.resolving.resolver_state import ResolverState
from config.settings import DatapathSettings, RedirectSettings
from k8s.objects.model import Pod, Policy
from tests.unit.actors.checks import CHECK
from tests.unit.objects import KEY, address_spec, pod, policy

WHY = "its dns check of port 53 failed: no answer within 500 ms"
CHECKED = policy(replace(address_spec(), health_check=CHECK))
A, B = pod("a", "10.1.0.1"), pod("b", "10.1.0.2")


class State(ResolverState[Outcome]):
    def __init__(self, *things: Policy | Pod) -> None:
        self.decision = AgentDecision(RedirectSettings())
        super().__init__(datapath=DatapathSettings(), redirect=RedirectSettings(), decision=self.decision)
        for thing in things:
            self.put(thing)

    def put(self, thing: Policy | Pod) -> None:
        if isinstance(thing, Policy):
            self.facts.upsert_policy(thing, 1)
        else:
            self.facts.upsert_pod(thing, 1)

    def fails(self, of: Pod, why: str = WHY, *, subject: Policy = CHECKED, uid: str = "") -> None:
        assert subject.spec and subject.spec.health_check
        self.facts.health_changed(
            HealthChanged(
                policy=subject.key,
                check=subject.spec.health_check,
                pod=of.key,
                uid=uid or of.uid,
                why_out_of_use=why,
                received_at=1.0,
            )
        )

    def ends(self, of: Pod, *, is_gone: bool = True) -> None:
        self.facts.containers_ended(
            ContainersEnded(pod=of.key, uid=of.uid, containers=frozenset(), is_gone=is_gone, received_at=1.0)
        )

    def backends(self, name: str = "p") -> list[str]:
        self.decide_changes()
        (found,) = (each for each in self.all_outcomes() if each.condition.key.name == name)
        return [str(each.address) for each in found.condition.backends]

    def outcome(self) -> Outcome:
        self.decide_changes()
        (found,) = self.all_outcomes()
        return found

    def sent(self, *, complete: bool = False) -> list[BackendsSelected | ChecksSelected]:
        changes = self.decide_changes()
        outcomes = self.all_outcomes() if complete else changes.outcomes
        decided = Decided(
            complete=complete, outcomes=outcomes, removed=changes.removed, conflicts=0, received_at=0.0, as_of=0.0
        )
        messages = self.decision.messages(decided)
        return [each for _, each in messages if isinstance(each, BackendsSelected | ChecksSelected)]


def test_p19_a_pod_is_out_of_use_while_its_check_fails() -> None:
    state = State(CHECKED, A, B)
    assert state.backends() == ["10.1.0.1", "10.1.0.2"]
    state.fails(A)
    assert state.backends() == ["10.1.0.2"]
    condition = state.outcome().condition
    assert (condition.state, condition.usable_pods, condition.unhealthy_pods) == (PolicyState.ACTIVE, 1, 1)
    assert condition.message.endswith(f"1 Ready Pod is out of use: kube-system/a ({WHY})")
    state.fails(B)
    assert state.backends() == []
    assert state.outcome().condition.state == PolicyState.NO_BACKEND
    assert state.outcome().condition.unhealthy_pods == 2
    state.fails(A, "")
    assert state.backends() == ["10.1.0.1"]


def test_p19_a_failed_check_counts_for_its_policy_and_for_no_other() -> None:
    other = replace(CHECKED, key=replace(KEY, name="other"), policy_id=8)
    assert other.spec
    other = replace(other, spec=replace(address_spec("169.254.0.91"), health_check=CHECK))
    state = State(CHECKED, other, A)
    state.fails(A)
    assert (state.backends(), state.backends("other")) == ([], ["10.1.0.1"])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda state: state.put(policy(address_spec())), id="no check"),
        pytest.param(
            lambda state: state.put(policy(replace(address_spec(), health_check=replace(CHECK, interval=2.0)))),
            id="another check",
        ),
        pytest.param(lambda state: state.put(replace(A, uid="another")), id="another Pod"),
        pytest.param(lambda state: (state.facts.remove_pod(A.key), state.put(A)), id="the Pod went and came"),
        pytest.param(lambda state: (state.facts.remove_policy(KEY), state.put(CHECKED)), id="the policy went and came"),
    ],
)
def test_what_was_found_of_another_pod_or_by_another_check_no_longer_counts(change: Callable[[State], object]) -> None:
    state = State(CHECKED, A)
    state.fails(A)
    assert state.backends() == []
    change(state)
    assert state.backends() == ["10.1.0.1"]


def test_a_check_that_is_as_it_was_before_does_not_bring_old_findings_back() -> None:
    state = State(CHECKED, A)
    state.fails(A)
    state.put(policy(address_spec()))
    state.put(CHECKED)
    assert state.backends() == ["10.1.0.1"]


def test_another_change_of_the_policy_keeps_what_was_found() -> None:
    state = State(CHECKED, A)
    state.fails(A)
    assert CHECKED.spec
    state.put(replace(CHECKED, spec=replace(CHECKED.spec, qos_limit=5)))
    assert state.backends() == []


def test_findings_that_come_late_are_left_out() -> None:
    state = State(policy(address_spec()), A)
    state.fails(A)  # by a check that the policy no longer has
    assert state.backends() == ["10.1.0.1"]
    state = State(CHECKED, A)
    state.fails(A, uid="the Pod before")
    state.fails(B)  # which is gone
    state.fails(A, subject=replace(CHECKED, key=replace(KEY, name="gone")))
    assert state.backends() == ["10.1.0.1"]


def test_pods_and_policies_that_are_gone_leave_nothing_behind() -> None:
    state = State(CHECKED, A, B)
    for each in (A, B):
        state.fails(each)
        state.ends(each)
    state.facts.remove_pod(A.key)
    state.facts.remove_policy(KEY)
    state.facts.remove_pod(B.key)
    assert [list(each) for each in vars(state.facts._health).values()] == [[], []]


def checks(*pods: Pod, why: str = "") -> ChecksSelected:
    found = tuple(CheckedPod(key=each.key, uid=each.uid, address=each.ips[0], why_out_of_use=why) for each in pods)
    wanted = PolicyChecks(key=KEY, check=CHECK, pods=found) if pods else PolicyChecks(key=KEY)
    return ChecksSelected(complete=False, policies=(wanted,))


def test_only_pods_that_are_usable_otherwise_are_checked() -> None:
    state = State(CHECKED, A, B, pod("c", ready=False), pod("d", terminating=True), pod("e", "fd01::5"))
    backends, selected = state.sent()
    assert isinstance(backends, BackendsSelected)
    assert [each.key.name for each in backends.policies[0].pods] == ["a", "b", "e"]
    assert selected == checks(A, B)
    state.ends(A)
    assert state.sent() == [checks(B)]
    state.ends(A, is_gone=False)
    assert state.sent() == [checks(A, B)]
    state.put(replace(B, ready=False))
    assert state.sent()[-1] == checks(A)


def test_a_new_ip_is_news_for_the_checks_and_not_for_the_watches_of_containers() -> None:
    state = State(CHECKED, A)
    state.sent()
    moved = replace(A, ips=(ip_address("10.1.0.77"),))
    state.put(moved)
    assert state.sent() == [checks(moved)]


def test_a_pod_is_checked_at_its_first_ip_of_a_frontends_family() -> None:
    state = State(CHECKED, pod("a", "fd01::1", "10.1.0.1", "10.1.0.9"))
    (wanted,) = state.sent()[-1].policies
    assert isinstance(wanted, PolicyChecks)
    assert [each.address for each in wanted.pods] == [ip_address("10.1.0.1")]


def test_a_pod_whose_check_failed_is_still_checked_and_the_checker_is_sent_what_the_resolver_knows() -> None:
    state = State(CHECKED, A)
    state.sent()
    state.fails(A)
    assert state.sent() == [checks(A, why=WHY)]
    state.fails(A, "")
    assert state.sent() == [checks(A)]


def test_a_policy_that_is_out_of_force_or_has_no_check_checks_nothing() -> None:
    state = State(policy(address_spec()), A)
    assert [type(each) for each in state.sent()] == [BackendsSelected]
    state = State(CHECKED, A)
    state.sent()
    assert CHECKED.spec
    state.put(replace(CHECKED, spec=replace(CHECKED.spec, enabled=False)))
    assert state.sent()[-1] == checks()
    state.put(CHECKED)
    assert state.sent()[-1] == checks(A)


def test_everything_is_sent_again_to_an_actor_that_asks() -> None:
    state = State(CHECKED, A)
    state.sent()
    state.fails(A)
    state.sent()
    assert state.sent(complete=True)[-1] == replace(checks(A, why=WHY), complete=True)
    state.facts.remove_policy(KEY)
    assert state.sent() == [
        BackendsSelected(complete=False, removed=(KEY,)),
        ChecksSelected(complete=False, removed=(KEY,)),
    ]
