"""Items come out of a schedule when they are due."""

from __future__ import annotations

from actors.health.schedule import Schedule


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
