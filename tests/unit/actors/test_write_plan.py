"""What the controller writes, and when: table and property tests of the plan, with a clock that the test sets."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.controller.event_plan import EVENTS_BURST
from actors.controller.write_plan import BURST, WritePlan, same_but_counts, status_of
from actors.messages.verdicts import Acceptance, ApplyVerdicts, PolicyStatusSeen, PolicyVerdict
from config.domain.ids import PolicyKey
from k8s.objects.model import PolicyStatus
from k8s.status.write_requests import EventWrite, StatusWrite, Write, WriteAnswer, WriteResult
from tests.unit.verdicts import BEFORE, HELD, KEY, LOST, NOW, VERDICT

WRITTEN, REFUSED, AWAY = (WriteAnswer(result=each) for each in WriteResult)


class Plan:
    """A plan, a clock, and an API server that accepts each write unless the test says otherwise."""

    def __init__(self, *, verdict: PolicyVerdict | None = None, present: PolicyStatus | None = None) -> None:
        self.plan = WritePlan()
        self.now = 100.0
        self.version = 10
        if present is not None:
            self.see(present)
        if verdict is not None:
            self.judge(verdict)

    def judge(self, *verdicts: PolicyVerdict, complete: bool = False, removed: tuple[PolicyKey, ...] = ()) -> None:
        self.plan.apply(ApplyVerdicts(complete=complete, verdicts=verdicts, removed=removed))

    def see(self, status: PolicyStatus, key: PolicyKey = KEY, uid: str = "u-1") -> None:
        self.plan.status_seen(PolicyStatusSeen(key=key, uid=uid, status=status))

    def next(self, after: float = 0.0) -> Write | None:
        self.now += after
        return self.plan.next(self.now, NOW)

    def end(self, write: Write, answer: WriteAnswer = WRITTEN) -> None:
        if answer.result == WriteResult.WRITTEN:
            self.version += 1
            answer = replace(answer, version=self.version)
        self.plan.ended(write, answer, self.now, 1.0)

    def write(self, after: float = 0.0, answer: WriteAnswer = WRITTEN) -> Write | None:
        found = self.next(after)
        if found is not None:
            self.end(found, answer)
        return found

    def statuses(self, after: float = 0.0) -> list[PolicyStatus]:
        """Writes everything that is due, and returns the statuses among it."""
        found = []
        self.now += after
        while (write := self.write()) is not None:
            if isinstance(write, StatusWrite):
                found.append(write.status)
        return found


# --- what is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "present", "transitioned_at"),
    [
        pytest.param(VERDICT, PolicyStatus(), NOW, id="nothing was there"),
        pytest.param(VERDICT, HELD, BEFORE, id="the same"),
        pytest.param(replace(VERDICT, message="other"), HELD, BEFORE, id="another message"),
        pytest.param(LOST, HELD, NOW, id="no longer accepted"),
        pytest.param(
            replace(LOST, reason=Acceptance.DISABLED), replace(HELD, accepted="False"), BEFORE, id="another reason"
        ),
    ],
)
def test_the_time_of_transition_changes_when_the_conditions_status_does(
    verdict: PolicyVerdict, present: PolicyStatus, transitioned_at: str
) -> None:
    assert status_of(verdict, present, NOW).transitioned_at == transitioned_at


def test_every_field_comes_from_the_verdict() -> None:
    assert status_of(LOST, PolicyStatus(), NOW) == PolicyStatus(
        accepted="False",
        reason="Conflict",
        message="lost",
        observed_generation=3,
        transitioned_at=NOW,
        frontend="kube-system/dns",
        frontends=(),
        nodes_ready=0,
        nodes_selected=5,
        nodes="0/5",
    )


@pytest.mark.parametrize("seen_first", [True, False])
def test_a_status_that_the_api_server_has_already_is_not_written(*, seen_first: bool) -> None:
    plan = Plan()
    steps: list[Callable[[], None]] = [lambda: plan.see(HELD), lambda: plan.judge(VERDICT)]
    for step in steps if seen_first else reversed(steps):
        step()
    assert plan.next() is None


@pytest.mark.parametrize("seen_first", [True, False])
def test_a_status_that_differs_is_written_with_the_reason_that_it_replaces(*, seen_first: bool) -> None:
    plan = Plan()
    steps: list[Callable[[], None]] = [lambda: plan.see(HELD), lambda: plan.judge(LOST)]
    for step in steps if seen_first else reversed(steps):
        assert plan.next() is None, "nothing is written before both verdict and status are known"
        step()
    status = status_of(LOST, HELD, NOW)
    expected = StatusWrite(key=KEY, uid="u-1", status=status, former_reason="Accepted", decided_at=NOW)
    assert plan.next() == expected
    assert plan.next() is None, "one at a time"


@pytest.mark.parametrize(
    "change",
    [
        {"generation": 4},
        {"message": "other"},
        {"frontend": "10.0.0.1"},
        {"frontends": ()},
        {"nodes_ready": 2},
        {"nodes_selected": 6},
    ],
    ids=str,
)
def test_a_difference_in_any_field_is_written(change: dict[str, object]) -> None:
    assert Plan(present=HELD, verdict=replace(VERDICT, **change)).next() is not None  # type: ignore[arg-type]


def test_a_verdict_that_is_revoked_before_it_was_written_is_not_written() -> None:
    plan = Plan(present=HELD, verdict=LOST)
    plan.judge(VERDICT)
    assert plan.next() is None


def test_a_status_that_somebody_else_overwrote_is_written_again() -> None:
    plan = Plan(present=HELD, verdict=VERDICT)
    plan.see(replace(HELD, nodes="9/9", version=99))
    assert plan.statuses() == [HELD]


# --- to which object --------------------------------------------------------------------------------------------------


def test_nothing_is_written_to_another_object_of_the_same_name() -> None:
    plan = Plan(present=PolicyStatus(), verdict=replace(VERDICT, uid="u-0"))
    assert plan.next() is None
    plan.judge(VERDICT)
    assert plan.next() is not None


@pytest.mark.parametrize("order", ["seen, removed, judged", "seen, judged", "removed, seen, judged"])
def test_a_policy_that_was_deleted_and_created_again_is_written_to(order: str) -> None:
    plan = Plan(present=HELD, verdict=VERDICT)
    new = replace(VERDICT, uid="u-2")
    for step in order.split(", "):
        match step:
            case "seen":
                plan.see(PolicyStatus(), uid="u-2")
            case "removed":
                plan.judge(removed=(KEY,))
            case _:
                plan.judge(new)
    write = plan.next()
    assert isinstance(write, StatusWrite) and write.uid == "u-2"


@pytest.mark.parametrize("how", ["removed", "complete"])
def test_a_deleted_policy_is_not_written_to(how: str) -> None:
    plan = Plan(present=HELD, verdict=LOST)
    if how == "removed":
        plan.judge(removed=(KEY,))
    else:
        plan.judge(complete=True)
    assert plan.next() is None
    plan.see(PolicyStatus())
    assert plan.next() is None


def test_a_policy_that_is_deleted_during_its_write_is_forgotten() -> None:
    plan = Plan(present=HELD, verdict=LOST)
    write = plan.next()
    assert write
    plan.judge(removed=(KEY,))
    plan.end(write, replace(REFUSED, gone=True))
    assert plan.next(after=1000) is None


# --- our own writes come back through the watch -----------------------------------------------------------------------


@pytest.mark.parametrize("echo_first", [True, False])
def test_our_own_write_that_comes_back_changes_nothing(*, echo_first: bool) -> None:
    plan = Plan(present=HELD, verdict=LOST)
    write = plan.next()
    assert isinstance(write, StatusWrite)
    echo = replace(write.status, version=11)
    if echo_first:
        plan.see(echo)
        plan.end(write)
    else:
        plan.end(write)
        plan.see(echo)
    assert plan.statuses(after=100) == []


def test_a_status_that_is_older_than_our_write_is_ignored() -> None:
    plan = Plan(present=HELD, verdict=LOST)
    plan.write()
    plan.see(replace(HELD, version=10))
    assert plan.statuses(after=100) == []
    plan.see(replace(HELD, version=12))
    assert len(plan.statuses(after=100)) == 1


def test_a_status_that_somebody_overwrote_before_our_write_was_answered_is_written_again() -> None:
    plan = Plan(present=HELD, verdict=LOST)
    write = plan.next()
    assert write
    plan.see(replace(HELD, nodes="9/9", version=99))
    plan.end(write)
    (status,) = plan.statuses(after=1)
    assert status.reason == "Conflict"


def test_a_policy_that_is_created_again_during_a_write_still_needs_its_status() -> None:
    plan = Plan(present=HELD, verdict=LOST)
    write = plan.next()
    assert write
    plan.see(PolicyStatus(), uid="u-2")
    plan.judge(replace(LOST, uid="u-2"))
    plan.end(write)
    again = plan.next()
    assert isinstance(again, StatusWrite) and again.uid == "u-2"


def test_a_verdict_that_changes_during_a_write_is_written_next() -> None:
    plan = Plan(present=HELD, verdict=LOST)
    write = plan.next()
    assert write
    plan.judge(replace(LOST, message="lost to another"))
    plan.end(write)
    (status,) = plan.statuses(after=1)
    assert status.message == "lost to another"


# --- when it is written -----------------------------------------------------------------------------------------------


def test_the_first_change_is_written_at_once_and_those_that_follow_together_a_second_later() -> None:
    plan = Plan(present=HELD, verdict=replace(VERDICT, nodes_ready=2))
    assert len(plan.statuses()) == 1
    for ready in (3, 4, 5):
        plan.judge(replace(VERDICT, nodes_ready=ready))
        assert plan.statuses(after=0.3) == []
    (status,) = plan.statuses(after=0.11)
    assert status.nodes == "5/5"


@pytest.mark.parametrize(
    ("selected", "message", "seconds"),
    [(5, "fine", 1.0), (100, "fine", 1.0), (200, "fine", 2.0), (1000, "fine", 10.0), (1000, "other", 1.0)],
)
def test_a_change_of_counts_waits_longer_in_a_big_cluster(selected: int, message: str, seconds: float) -> None:
    verdict = replace(VERDICT, nodes_selected=selected, nodes_ready=0)
    plan = Plan(present=HELD, verdict=verdict)
    assert plan.write()
    plan.judge(replace(verdict, nodes_ready=7, message=message))
    assert plan.next(after=seconds - 0.01) is None
    assert plan.next(after=0.02) is not None


def test_a_policy_that_waits_does_not_delay_others() -> None:
    plan = Plan(present=HELD, verdict=LOST)
    plan.statuses()
    plan.judge(VERDICT)
    other = replace(KEY, name="other")
    plan.see(PolicyStatus(), key=other)
    plan.judge(replace(VERDICT, key=other))
    write = plan.next()
    assert write is not None and write.key == other


def test_all_policies_together_keep_to_a_rate() -> None:
    plan = Plan()
    for number in range(200):
        key = replace(KEY, name=f"p{number}")
        plan.see(replace(HELD, reason="Accepted"), key=key)
        plan.judge(replace(VERDICT, key=key, nodes_ready=2))
    assert len(plan.statuses()) == BURST == 20
    assert len(plan.statuses(after=1.0)) == 20
    assert plan.statuses(after=0.01) == []
    assert len(plan.statuses(after=60)) == 20, "idle time does not raise the burst"


def test_statuses_that_differ_only_in_counts_are_the_same_but_for_counts() -> None:
    assert same_but_counts(HELD, replace(HELD, nodes_ready=3, nodes_selected=9, nodes="3/9"))
    assert not same_but_counts(HELD, replace(HELD, nodes_ready=3, message="other"))


# --- outages and refusals ---------------------------------------------------------------------------------------------


def test_writes_back_off_during_an_outage_and_then_the_newest_status_is_written() -> None:
    plan = Plan(present=HELD, verdict=LOST)
    assert plan.write(answer=AWAY)
    assert plan.write(after=0.4, answer=AWAY) is None
    assert plan.write(after=0.2, answer=AWAY)
    assert plan.write(after=0.9, answer=AWAY) is None
    assert plan.write(after=0.2, answer=AWAY)
    plan.judge(replace(LOST, message="newest"))
    (status,) = plan.statuses(after=2.1)
    assert status.message == "newest"
    plan.judge(VERDICT)
    assert plan.write(after=1.0), "a success resets the back-off"


def test_a_pause_that_the_api_server_asks_for_is_kept() -> None:
    plan = Plan(present=HELD, verdict=LOST)
    assert plan.write(answer=replace(AWAY, retry_after=60.0)) is not None
    assert plan.next(after=59.9) is None
    assert plan.next(after=15.2) is not None


def test_an_outage_delays_all_policies() -> None:
    plan = Plan(present=HELD, verdict=LOST)
    plan.write(answer=AWAY)
    other = replace(KEY, name="other")
    plan.see(PolicyStatus(), key=other)
    plan.judge(replace(VERDICT, key=other))
    assert plan.next(after=0.1) is None


def test_a_refused_write_backs_off_and_does_not_delay_others() -> None:
    plan = Plan(present=HELD, verdict=LOST)
    tries = [plan.now for _ in range(4000) if plan.write(after=0.25, answer=REFUSED)]
    gaps = [round(after - before) for before, after in itertools.pairwise(tries)]
    assert gaps == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300]
    other = replace(KEY, name="other")
    plan.see(PolicyStatus(), key=other)
    plan.judge(replace(VERDICT, key=other))
    assert plan.next() is not None


# --- Events -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "present", "reason"),
    [
        pytest.param(VERDICT, PolicyStatus(), "Accepted", id="a new policy"),
        pytest.param(LOST, PolicyStatus(), "Conflict", id="a new policy that loses"),
        pytest.param(LOST, HELD, "Conflict", id="one that was accepted"),
        pytest.param(replace(LOST, reason=Acceptance.INVALID), HELD, "Invalid", id="one that is no longer valid"),
        pytest.param(replace(LOST, reason=Acceptance.DISABLED), HELD, "Disabled", id="one that is turned off"),
        pytest.param(replace(VERDICT, nodes_ready=4), HELD, None, id="a count"),
        pytest.param(replace(VERDICT, message="other"), HELD, None, id="a message"),
        pytest.param(VERDICT, HELD, None, id="no difference to what a former controller wrote"),
    ],
)
def test_a_change_of_the_reason_causes_an_event(
    verdict: PolicyVerdict, present: PolicyStatus, reason: str | None
) -> None:
    plan = Plan(present=present, verdict=verdict)
    writes = [write for _ in range(3) if (write := plan.write())]
    events = [each for each in writes if isinstance(each, EventWrite)]
    expected = EventWrite(key=KEY, uid="u-1", reason=reason or "", message=verdict.message, happened_at=NOW)
    assert events == ([expected] if reason else [])


@pytest.mark.parametrize(("answer", "again"), [(REFUSED, False), (AWAY, True)])
def test_an_event_that_is_refused_is_dropped_and_one_that_cannot_be_sent_is_kept(
    answer: WriteAnswer, *, again: bool
) -> None:
    plan = Plan(present=HELD, verdict=LOST)
    plan.write()
    event = plan.write(answer=answer)
    assert isinstance(event, EventWrite)
    assert plan.next(after=10) == (event if again else None)


def test_an_outage_of_events_does_not_delay_statuses() -> None:
    plan = Plan(present=HELD, verdict=LOST)
    plan.write()
    assert isinstance(plan.write(answer=AWAY), EventWrite)
    plan.judge(VERDICT)
    assert plan.next(after=0.3) is None, "a second must pass between two writes to a policy"
    tries = [plan.write(after=0.4, answer=AWAY) for _ in range(2)]
    assert [type(each) for each in tries] == [EventWrite, StatusWrite]


def test_there_is_no_event_for_a_status_that_was_not_written() -> None:
    plan = Plan(present=HELD, verdict=LOST)
    plan.write(answer=REFUSED)
    assert not isinstance(plan.next(after=0.1), EventWrite)


def test_a_policy_that_goes_back_and_forth_has_a_limited_number_of_events() -> None:
    plan = Plan(present=HELD, verdict=VERDICT)
    events = 0
    for number in range(200):
        plan.judge(VERDICT if number % 2 else LOST)
        plan.now += 1.0
        while (write := plan.write()) is not None:
            events += isinstance(write, EventWrite)
    assert EVENTS_BURST <= events <= EVENTS_BURST + 200 / 60 + 1


def events_of(plan: Plan, seconds: int) -> list[str]:
    """Lets so many seconds pass, and returns the reasons of the Events that are written in that time."""
    found = []
    for _ in range(seconds):
        plan.now += 1.0
        while (write := plan.write()) is not None:
            found += [write.reason] if isinstance(write, EventWrite) else []
    return found


@pytest.mark.parametrize("changes", [30, 31])
def test_the_last_event_of_a_policy_that_went_back_and_forth_agrees_with_its_state(changes: int) -> None:
    plan = Plan(present=HELD, verdict=VERDICT)
    reasons = []
    for number in range(changes):
        plan.judge(VERDICT if number % 2 else LOST)
        reasons += events_of(plan, 1)
    reasons += events_of(plan, 200)
    assert len(reasons) <= EVENTS_BURST + 1
    assert reasons[-1] == ("Accepted" if changes % 2 == 0 else "Conflict")


def test_an_event_that_had_to_wait_is_dropped_when_the_policy_is_created_again() -> None:
    plan = Plan(present=HELD, verdict=VERDICT)
    for number in range(21):
        plan.judge(VERDICT if number % 2 else LOST)
        events_of(plan, 1)
    plan.judge(removed=(KEY,))
    plan.see(HELD, uid="u-2")
    plan.judge(replace(VERDICT, uid="u-2"))
    assert events_of(plan, 200) == []


def test_after_a_refused_event_the_next_change_causes_an_event_whatever_its_reason() -> None:
    plan = Plan(present=replace(HELD, reason="Disabled", accepted="False"), verdict=VERDICT)
    plan.write()
    assert isinstance(plan.write(answer=REFUSED), EventWrite)
    plan.judge(LOST)
    assert events_of(plan, 2) == ["Conflict"]
    plan.judge(VERDICT)
    assert events_of(plan, 2) == ["Accepted"]


# --- any history ------------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b"])
UIDS = st.sampled_from(["u-1", "u-2"])


class Api(Plan):
    """An API server that keeps what is written to it, and whose watch delivers it later."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, tuple[str, PolicyStatus]] = {}
        self.verdicts: dict[str, PolicyVerdict] = {}

    def make(self, name: str, uid: str) -> None:
        if self.held.get(name, ("",))[0] != uid:
            self.version += 1
            self.held[name] = uid, PolicyStatus(version=self.version)
        self.see(self.held[name][1], key=replace(KEY, name=name), uid=uid)

    def decide(self, name: str, uid: str, verdict: PolicyVerdict) -> None:
        self.make(name, uid)  # a watcher reports the status before the policy
        self.verdicts[name] = replace(verdict, key=replace(KEY, name=name), uid=uid)
        self.judge(self.verdicts[name])

    def remove(self, name: str) -> None:
        self.held.pop(name, None)
        self.verdicts.pop(name, None)
        self.judge(removed=(replace(KEY, name=name),))

    def try_to_write(self, answer: WriteAnswer, after: float) -> bool:
        found = self.next(after)
        if found is None:
            return False
        if isinstance(found, StatusWrite) and answer.result == WriteResult.WRITTEN:
            uid, _ = self.held[found.key.name]
            assert uid == found.uid, "never to another object of the same name"
            self.held[found.key.name] = uid, replace(found.status, version=self.version + 1)
        self.end(found, answer)
        return True


STEPS = st.one_of(
    st.builds(lambda name, uid: lambda api: api.make(name, uid), NAMES, UIDS),
    st.builds(
        lambda name, uid, verdict: lambda api: api.decide(name, uid, verdict),
        NAMES,
        UIDS,
        st.sampled_from([VERDICT, LOST, replace(VERDICT, nodes_ready=2)]),
    ),
    st.builds(lambda name: lambda api: api.remove(name), NAMES),
    st.builds(
        lambda answer, after: lambda api: api.try_to_write(answer, after),
        st.sampled_from([WRITTEN, REFUSED, AWAY]),
        st.floats(0, 3),
    ),
)


@given(st.lists(STEPS, max_size=30))
def test_in_the_end_the_api_server_has_the_newest_verdicts(
    steps: list[Callable[[Api], object]],
) -> None:
    api = Api()
    for step in steps:
        step(api)
    for _ in range(50):
        while api.try_to_write(WRITTEN, after=400):
            pass
    for name, verdict in api.verdicts.items():
        uid, status = api.held[name]
        assert uid != verdict.uid or status == status_of(verdict, status, "")
