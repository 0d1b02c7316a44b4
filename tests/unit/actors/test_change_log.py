"""Which changes of policies are logged when a backend flaps; with a clock of the test's own."""

from __future__ import annotations

import logging

from actors.reporting.change_log import BURST, LINES_PER_SECOND, MOST_TEXTS, ChangeLog, Line
from config.domain.ids import PolicyKey, PolicyKind

KEY, OTHER = (PolicyKey(PolicyKind.LOCAL_REDIRECT, name) for name in ("p", "q"))
BURST_LINES = int(BURST)
PAUSE = 1 / LINES_PER_SECOND


def info(text: str) -> Line:
    return Line(level=logging.INFO, text=text)


def said(log: ChangeLog, key: PolicyKey, text: str, now: float) -> list[str]:
    return [line.text for line in log.changed(key, info(text), now)]


def flap(log: ChangeLog, times: int, *, now: float = 100.0) -> list[str]:
    return [text for number in range(times) for text in said(log, KEY, f"state {number % 2}", now)]


def test_a_few_changes_are_logged_as_they_come() -> None:
    assert flap(ChangeLog(), BURST_LINES) == [f"state {number % 2}" for number in range(BURST_LINES)]


def test_further_ones_are_one_line_that_tells_the_newest_state_and_their_number() -> None:
    log = ChangeLog()
    assert len(flap(log, BURST_LINES + 20)) == BURST_LINES
    assert log.due(100.0 + PAUSE - 0.1) == []
    (line,) = log.due(100.0 + PAUSE + 0.1)
    assert line.text == (
        f"state {(BURST_LINES + 19) % 2} (19 changes before this one not logged, because they are frequent)"
    )
    assert log.due(10_000.0) == [], "it is told once"


def test_a_single_change_that_was_put_off_is_told_as_it_is() -> None:
    log = ChangeLog()
    flap(log, BURST_LINES + 1)
    assert log.due(100.0 + PAUSE) == [info(f"state {BURST_LINES % 2}")]


def test_a_policy_that_goes_on_flapping_is_one_line_in_a_while_whose_last_is_its_state() -> None:
    log = ChangeLog()
    lines = []
    for second in range(600):
        lines += said(log, KEY, f"state {second % 2}", 100.0 + second)
        lines += [line.text for line in log.due(100.0 + second)]
    lines += [line.text for line in log.due(10_000.0)]
    assert len(lines) <= BURST + 600 * LINES_PER_SECOND + 1
    assert lines[-1].startswith("state 1")


def test_a_policy_that_flaps_keeps_no_other_silent() -> None:
    log = ChangeLog()
    flap(log, 100)
    assert said(log, OTHER, "fine", 100.0) == ["fine"]


def test_a_warning_among_those_left_out_is_not_hidden_from_who_reads_warnings_only() -> None:
    log = ChangeLog()
    flap(log, BURST_LINES)
    log.changed(KEY, Line(level=logging.WARNING, text="state 1"), 100.0)
    log.changed(KEY, info("state 0"), 100.0)
    (line,) = log.due(100.0 + PAUSE)
    assert (line.level, line.text.split(" (")[0]) == (logging.WARNING, "state 0")


def test_nothing_is_remembered_of_policies_that_are_quiet() -> None:
    log = ChangeLog()
    flap(log, 3)
    log.due(100.0)
    assert log.remembered == 1
    log.due(100.0 + BURST * PAUSE)
    assert log.remembered == 0


def test_what_was_not_said_before_is_logged_at_once() -> None:
    log = ChangeLog()
    flap(log, 100)
    (line,) = said(log, KEY, "spec.enabled: 'yes' is wrong", 100.0)
    assert line.startswith("spec.enabled: 'yes' is wrong")


def test_lines_that_differ_each_time_are_put_off_too() -> None:
    log = ChangeLog()
    lines = [text for number in range(1000) for text in said(log, KEY, f"backend {number}", 100.0)]
    assert len(lines) == MOST_TEXTS
