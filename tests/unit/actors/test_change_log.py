"""Which changes of policies are logged while a backend flaps, with a clock that the test sets."""

from __future__ import annotations

import logging

from actors.reporting.change_log import BURST, LINES_PER_SECOND, MAX_TEXTS, ChangeLog, Line
from config.domain.ids import PolicyKey, PolicyKind

KEY, OTHER = (PolicyKey(PolicyKind.LOCAL_REDIRECT, name) for name in ("p", "q"))
BURST_LINES = int(BURST)
PAUSE = 1 / LINES_PER_SECOND


def info(text: str) -> Line:
    return Line(level=logging.INFO, text=text)


def logged(log: ChangeLog, key: PolicyKey, text: str, now: float) -> list[str]:
    return [line.text for line in log.changed(key, info(text), now)]


def flap(log: ChangeLog, times: int, *, now: float = 100.0) -> list[str]:
    return [text for number in range(times) for text in logged(log, KEY, f"state {number % 2}", now)]


def test_a_few_changes_are_logged_as_they_come() -> None:
    assert flap(ChangeLog(), BURST_LINES) == [f"state {number % 2}" for number in range(BURST_LINES)]


def test_further_changes_become_one_line_with_the_newest_state_and_their_number() -> None:
    log = ChangeLog()
    assert len(flap(log, BURST_LINES + 20)) == BURST_LINES
    assert log.due(100.0 + PAUSE - 0.1) == []
    (line,) = log.due(100.0 + PAUSE + 0.1)
    assert line.text == (
        f"state {(BURST_LINES + 19) % 2} (19 changes before this one not logged, because they are frequent)"
    )
    assert log.due(10_000.0) == [], "it is logged once"


def test_a_single_deferred_change_is_logged_unchanged() -> None:
    log = ChangeLog()
    flap(log, BURST_LINES + 1)
    assert log.due(100.0 + PAUSE) == [info(f"state {BURST_LINES % 2}")]


def test_a_policy_that_keeps_flapping_is_logged_at_a_low_rate_and_the_last_line_is_its_state() -> None:
    log = ChangeLog()
    lines = []
    for second in range(600):
        lines += logged(log, KEY, f"state {second % 2}", 100.0 + second)
        lines += [line.text for line in log.due(100.0 + second)]
    lines += [line.text for line in log.due(10_000.0)]
    assert len(lines) <= BURST + 600 * LINES_PER_SECOND + 1
    assert lines[-1].startswith("state 1")


def test_a_policy_that_flaps_does_not_delay_the_lines_of_others() -> None:
    log = ChangeLog()
    flap(log, 100)
    assert logged(log, OTHER, "fine", 100.0) == ["fine"]


def test_a_skipped_warning_raises_the_level_of_the_line_that_stands_for_it() -> None:
    log = ChangeLog()
    flap(log, BURST_LINES)
    log.changed(KEY, Line(level=logging.WARNING, text="state 1"), 100.0)
    log.changed(KEY, info("state 0"), 100.0)
    (line,) = log.due(100.0 + PAUSE)
    assert (line.level, line.text.split(" (")[0]) == (logging.WARNING, "state 0")


def test_nothing_is_remembered_about_a_policy_that_no_longer_changes() -> None:
    log = ChangeLog()
    flap(log, 3)
    log.due(100.0)
    assert len(log._recent) == 1
    log.due(100.0 + BURST * PAUSE)
    assert len(log._recent) == 0


def test_a_line_that_is_new_is_logged_at_once() -> None:
    log = ChangeLog()
    flap(log, 100)
    (line,) = logged(log, KEY, "spec.enabled: 'yes' is wrong", 100.0)
    assert line.startswith("spec.enabled: 'yes' is wrong")


def test_lines_that_differ_each_time_are_limited_as_well() -> None:
    log = ChangeLog()
    lines = [text for number in range(1000) for text in logged(log, KEY, f"backend {number}", 100.0)]
    assert len(lines) == MAX_TEXTS
