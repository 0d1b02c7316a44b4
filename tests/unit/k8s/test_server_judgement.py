"""What a list-watch makes of the API server's answers, without a server."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

import pytest

from config.domain.ids import PolicyKind
from k8s.api.errors import ApiError
from k8s.api.resource import Resource
from k8s.api.server_judgement import SILENCE_SECONDS, Reaction, ServerJudgement
from k8s.api.trouble import TroubleKind
from k8s.sources import resources

PODS = resources.pods_of_node("here")
NEEDED = resources.policies(PolicyKind.LOCAL_REDIRECT)
OPTIONAL = resources.policies(PolicyKind.BALANCING)

Answer = Callable[[ServerJudgement], Reaction | None]


def refusal(status: int, *causes: str, absent: bool = False, retry_after: float = 0.0) -> Answer:
    error = ApiError(status, HTTPStatus(status).phrase, "no", retry_after=retry_after, causes=frozenset(causes))
    return lambda judgement: judgement.refused(error, "watch", absent=absent)


def unreachable(judgement: ServerJudgement) -> Reaction:
    return judgement.was_unreachable("connection refused")


def short_watch(judgement: ServerJudgement) -> None:
    judgement.ended_watch(0.5)


def long_watch(judgement: ServerJudgement) -> None:
    judgement.ended_watch(1.0)


LIST, EVENT = ServerJudgement.listed, ServerJudgement.sent_event
EXPIRED, BROKEN, ABSENT, CONTRADICTED = refusal(410), refusal(500), refusal(404, absent=True), refusal(404)
TOO_LARGE = refusal(504, "ResourceVersionTooLarge")


def judge(resource: Resource, *answers: Answer) -> tuple[ServerJudgement, Reaction]:
    """The judgement after `answers`, and the reaction to the last failure."""
    judgement, reaction = ServerJudgement(resource), Reaction()
    for answer in answers:
        reaction = answer(judgement) or reaction
    return judgement, reaction


def wait_seconds(reaction: Reaction) -> float:
    """The longest that jitter makes of it, when the server does not ask for a time."""
    return reaction.wait.seconds(1.0) if reaction.wait else 0.0


FAILURES: dict[str, tuple[Answer, TroubleKind, str, str]] = {
    "nobody answers": (unreachable, TroubleKind.OUTAGE, "connection refused", ""),
    "the server has a problem": (BROKEN, TroubleKind.OUTAGE, "500 Internal Server Error", ""),
    "the server has too much to do": (refusal(429), TroubleKind.OUTAGE, "429 Too Many Requests", ""),
    "a right is missing": (refusal(403), TroubleKind.REFUSED, "the right to watch pods is missing", ""),
    "credentials are not accepted": (refusal(401), TroubleKind.REFUSED, "does not accept our credentials", ""),
    "404, and discovery contradicts": (CONTRADICTED, TroubleKind.OUTAGE, "says that it has this kind", "absent"),
    "404 once, and discovery agrees": (ABSENT, TroubleKind.OUTAGE, "only after 3 such answers", "absent"),
}


@pytest.mark.parametrize("what", FAILURES)
def test_a_failure_is_reported_and_the_version_stays_good_unless_it_is_a_404(what: str) -> None:
    answer, kind, why, relist = FAILURES[what]
    _, reaction = judge(PODS, LIST, answer)
    assert reaction.report and reaction.report.kind == kind
    assert why in reaction.report.why
    assert (reaction.relist, reaction.all_gone, reaction.ends_trouble) == (relist, False, False)
    assert reaction.wait


@pytest.mark.parametrize("answer", [unreachable, BROKEN, CONTRADICTED, ABSENT])
def test_a_report_says_whether_objects_were_known(answer: Answer) -> None:
    before, after = judge(NEEDED, answer)[1].report, judge(NEEDED, LIST, answer)[1].report
    assert before and before.consequence == "its objects are not known yet"
    assert after and after.consequence == "the last known state stays in force"


def test_a_version_that_expired_is_no_trouble_and_is_listed_again_at_once() -> None:
    assert judge(PODS, LIST, EXPIRED)[1] == Reaction(relist="expired")


WAITS: dict[str, tuple[tuple[Answer, ...], float]] = {
    "after the first failure": ((BROKEN,), 0.25),
    "doubles with each failure in a row": ((BROKEN, unreachable, refusal(403)), 1.0),
    "is never longer than its limit": ((BROKEN,) * 20, 10.0),
    "starts again after an event": ((BROKEN, BROKEN, EVENT, BROKEN), 0.25),
    "starts again after a watch that lasted": ((BROKEN, BROKEN, long_watch, BROKEN), 0.25),
    "goes on after a list and a watch that ended at once": ((BROKEN, LIST, short_watch, unreachable), 0.5),
    "after a second version that expired": ((LIST, EXPIRED, LIST, EXPIRED), 0.5),
    "after an absent kind": ((ABSENT,), 5.0),
    "after an absent kind, again": ((ABSENT,) * 5, 10.0),
}


@pytest.mark.parametrize("wait", WAITS)
def test_the_wait_doubles_with_failures_in_a_row_up_to_a_limit(wait: str) -> None:
    answers, seconds = WAITS[wait]
    assert wait_seconds(judge(NEEDED, *answers)[1]) == seconds


def test_an_optional_kind_that_stays_absent_is_looked_for_once_in_a_minute() -> None:
    assert wait_seconds(judge(OPTIONAL, *(ABSENT,) * 5)[1]) == 60.0


BUSY = {
    "the server is down": refusal(503, retry_after=90.0),
    "the version expired again": refusal(410, retry_after=90.0),
    "the kind is absent": refusal(404, absent=True, retry_after=90.0),
    "discovery contradicts": refusal(404, retry_after=90.0),
}


@pytest.mark.parametrize("why", BUSY)
def test_the_wait_is_no_shorter_than_the_server_asks_for(why: str) -> None:
    _, reaction = judge(NEEDED, BROKEN, BUSY[why])
    assert reaction.wait and reaction.wait.retry_after == 90.0
    assert reaction.wait.seconds(0.0) == 90.0


ABSENCES: dict[str, tuple[Resource, tuple[Answer, ...], bool]] = {
    "a needed kind, twice": (NEEDED, (ABSENT,) * 2, False),
    "a needed kind, three times": (NEEDED, (ABSENT,) * 3, True),
    "a needed kind that was there, three times": (NEEDED, (LIST, *(ABSENT,) * 3), True),
    "an optional kind that was never there, once": (OPTIONAL, (ABSENT,), True),
    "an optional kind that was there, twice": (OPTIONAL, (LIST, *(ABSENT,) * 2), False),
    "an optional kind that was there, three times": (OPTIONAL, (LIST, *(ABSENT,) * 3), True),
    "an optional kind that came back": (OPTIONAL, (ABSENT, LIST, ABSENT), False),
    "an outage in between": (NEEDED, (ABSENT, ABSENT, unreachable, ABSENT), False),
    "an error in between": (NEEDED, (ABSENT, ABSENT, BROKEN, ABSENT), False),
    "discovery contradicts in between": (NEEDED, (ABSENT, ABSENT, CONTRADICTED, ABSENT), False),
    "a list in between": (NEEDED, (ABSENT, ABSENT, LIST, ABSENT), False),
}


@pytest.mark.parametrize("case", ABSENCES)
def test_objects_are_gone_once_the_absence_of_their_kind_is_sure(case: str) -> None:
    resource, answers, gone = ABSENCES[case]
    judgement, reaction = judge(resource, *answers)
    assert (reaction.relist, reaction.all_gone) == ("absent", gone)
    assert not (gone and judgement.known)


def test_the_absence_of_a_needed_kind_is_trouble_and_that_of_an_optional_one_ends_it() -> None:
    _, needed = judge(NEEDED, *(ABSENT,) * 3)
    _, optional = judge(OPTIONAL, *(ABSENT,) * 3)
    assert needed.report and (needed.report.kind, needed.ends_trouble) == (TroubleKind.ABSENT, False)
    assert "kubectl apply -f k8s/crd.yaml" in needed.report.why
    assert (optional.report, optional.ends_trouble) == (None, True)


VERSIONS: dict[str, tuple[tuple[Answer, ...], bool]] = {
    "three times": ((TOO_LARGE,) * 3, False),
    "four times": ((TOO_LARGE,) * 4, True),
    "four times, with other failures in between": ((TOO_LARGE, TOO_LARGE, unreachable, TOO_LARGE, TOO_LARGE), True),
    "four times, and then a list": ((*(TOO_LARGE,) * 4, LIST), False),
}


@pytest.mark.parametrize("times", VERSIONS)
def test_a_server_that_says_too_often_that_our_version_is_too_new_will_never_know_it(times: str) -> None:
    answers, lacks = VERSIONS[times]
    assert judge(PODS, *answers)[0].lacks_our_version == lacks


PROBATIONS: dict[str, tuple[tuple[Answer, ...], bool]] = {
    "no watch yet": ((), False),
    "a watch that lasted": ((long_watch,), False),
    "a watch that ended at once": ((short_watch,), True),
    "then a list": ((short_watch, LIST), True),
    "then an event": ((short_watch, EVENT), True),
    "then a watch that lasted": ((short_watch, long_watch), False),
}


@pytest.mark.parametrize("after", PROBATIONS)
def test_a_server_that_ended_a_watch_at_once_is_on_probation_until_one_lasts(after: str) -> None:
    answers, on_probation = PROBATIONS[after]
    judgement, _ = judge(PODS, *answers)
    assert judgement.on_probation == on_probation
    assert judgement.silence_seconds == (5.0 if on_probation else SILENCE_SECONDS)
