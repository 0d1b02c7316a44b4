"""Ranges of the array `backends`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.writing.slots import Slots


def test_ranges_are_given_out_in_turn() -> None:
    slots = Slots(10)
    assert slots.take(3) == 0
    slots.release(0, 3)
    assert slots.take(3) == 3, "a freed range is not used while there is another"


def test_a_range_wraps_around_when_the_end_is_taken() -> None:
    slots = Slots(4)
    assert slots.take(3) == 0
    slots.release(0, 3)
    assert slots.take(2) == 0


def test_nothing_is_taken_when_no_range_is_long_enough() -> None:
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
def test_ranges_never_overlap_and_can_all_be_freed(steps: list[tuple[bool, int]]) -> None:
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


@pytest.mark.parametrize(
    ("taken", "count", "stretch"),
    [
        pytest.param([(0, 8)], 1, [], id="nothing is free"),
        pytest.param([(2, 2)], 4, [(4, 4)], id="one free range is long enough"),
        pytest.param([(2, 1), (5, 1)], 4, [(0, 2), (3, 2)], id="two, with one slot between them"),
        pytest.param([(2, 3)], 5, [(0, 2), (5, 3)], id="all that is free"),
        pytest.param([(1, 3), (5, 1)], 3, [(4, 1), (6, 2)], id="those with the fewest slots between them"),
    ],
)
def test_the_stretch_with_the_fewest_taken_slots_is_chosen(
    taken: list[tuple[int, int]], count: int, stretch: list[tuple[int, int]]
) -> None:
    slots = Slots(8)
    for start, length in taken:
        assert slots.reserve(start, length)
    assert slots.stretch(count) == stretch


def test_freed_room_is_found_after_a_search_that_found_none() -> None:
    slots = Slots(4)
    assert slots.take(3) == 0
    assert slots.take(2) is None
    slots.release(1, 2)
    assert slots.take(3) == 1, "a part of a range was freed"
