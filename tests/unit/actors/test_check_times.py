"""When checks begin."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.health.check_times import STEPS, first_time, next_time


@given(number=st.integers(1, 300), interval=st.sampled_from([0.05, 0.1, 1.0, 300.0]), now=st.floats(0, 1e6))
def test_first_times_are_spread_evenly_over_the_steps_of_the_next_interval(
    number: int, interval: float, now: float
) -> None:
    times = [first_time(each, interval, now) for each in range(number)]
    steps = Counter(round(each / interval * STEPS) for each in times)
    assert all(now - 1e-6 < each < now + interval * (1 + 1 / STEPS) + 1e-6 for each in times)
    assert max(steps.values()) - min(number // STEPS, *steps.values()) <= 3


def test_checks_with_one_interval_share_steps_whenever_they_began() -> None:
    for now in (0.0, 100.013, 7000.999):
        assert first_time(7, 1.0, now) * STEPS == pytest.approx(round(first_time(7, 1.0, now) * STEPS), abs=1e-6)


def test_the_next_time_keeps_the_phase_and_times_that_were_missed_are_left_out() -> None:
    assert next_time(10.0, 1.0, now=10.2) == 11.0
    assert next_time(10.0, 1.0, now=11.0) == 11.0
    assert next_time(10.0, 1.0, now=11.4) == 11.0
    assert next_time(10.0, 1.0, now=14.5) == 14.0
