"""Ranges of the backends array."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bpf.slots import Slots


def test_ranges_are_given_out_in_turn() -> None:
    slots = Slots(10)
    assert slots.take(3) == 0
    slots.release(0, 3)
    assert slots.take(3) == 3, "a freed range rests while there is another"


def test_a_range_wraps_around_when_the_end_is_taken() -> None:
    slots = Slots(4)
    assert slots.take(3) == 0
    slots.release(0, 3)
    assert slots.take(2) == 0


def test_no_range_is_long_enough() -> None:
    slots = Slots(4)
    assert slots.take(5) is None
    assert slots.used == 0


def test_a_reserved_range_is_not_given_out() -> None:
    slots = Slots(8)
    assert slots.reserve(2, 3)
    assert not slots.reserve(4, 2)
    assert slots.take(3) == 5
    assert slots.take(3) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=60))
def test_ranges_never_overlap_and_all_come_back(steps: list[tuple[bool, int]]) -> None:
    slots = Slots(32)
    held: list[tuple[int, int]] = []
    for is_take, number in steps:
        if is_take:
            start = slots.take(number)
            if start is not None:
                assert all(start + number <= other or other + length <= start for other, length in held)
                assert start + number <= 32
                held.append((start, number))
        elif held:
            slots.release(*held.pop(number % len(held)))
        assert slots.used == sum(length for _, length in held)
    for each in held:
        slots.release(*each)
    assert slots.take(32) == 0
