"""When checks are due."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.health.schedule import SLOTS, Schedule, first_time, next_time


def test_items_come_out_in_the_order_of_their_times() -> None:
    schedule = Schedule[str]()
    for item, when in (("b", 2.0), ("a", 1.0), ("c", 3.0)):
        schedule.set(item, when)
    assert schedule.earliest() == 1.0
    assert schedule.pop(2.0) == ["a", "b"]
    assert (schedule.pop(2.9), schedule.earliest()) == ([], 3.0)


def test_a_new_time_replaces_the_former_one_and_a_cancelled_item_never_comes() -> None:
    schedule = Schedule[str]()
    schedule.set("a", 1.0)
    schedule.set("a", 5.0)
    schedule.set("b", 2.0)
    schedule.cancel("b")
    schedule.cancel("unknown")
    assert schedule.earliest() == 5.0
    assert schedule.pop(9.0) == ["a"]
    assert schedule.earliest() is None
    assert schedule.pop(9.0) == []


@given(number=st.integers(1, 300), interval=st.sampled_from([0.05, 0.1, 1.0, 300.0]), now=st.floats(0, 1e6))
def test_first_times_are_spread_evenly_over_the_slots_of_the_next_interval(
    number: int, interval: float, now: float
) -> None:
    times = [first_time(each, interval, now) for each in range(number)]
    slots = Counter(round(each / interval * SLOTS) for each in times)
    assert all(now - 1e-6 < each < now + interval * (1 + 1 / SLOTS) + 1e-6 for each in times)
    assert max(slots.values()) - min(number // SLOTS, *slots.values()) <= 3


def test_checks_with_one_interval_share_slots_whenever_they_began() -> None:
    for now in (0.0, 100.013, 7000.999):
        assert first_time(7, 1.0, now) * SLOTS == pytest.approx(round(first_time(7, 1.0, now) * SLOTS), abs=1e-6)


def test_the_next_time_keeps_the_phase_and_times_that_were_missed_are_left_out() -> None:
    assert next_time(10.0, 1.0, now=10.2) == 11.0
    assert next_time(10.0, 1.0, now=11.0) == 11.0
    assert next_time(10.0, 1.0, now=11.4) == 11.0
    assert next_time(10.0, 1.0, now=14.5) == 14.0
