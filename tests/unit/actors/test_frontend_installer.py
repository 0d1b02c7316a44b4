"""Where a frontend's backends go; tests/kernel/test_room.py looks at the maps while they change."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from actors.writing.frontend_installer import part_that_stays
from config.domain.addresses import Endpoint


def endpoints(text: str) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(ip_address("10.0.0.1"), ord(letter)) for letter in text)


@pytest.mark.parametrize(
    ("present", "wanted", "part"),
    [
        pytest.param("abc", "abc", (0, 3), id="all stay"),
        pytest.param("abc", "ab", (0, 2), id="the last is removed"),
        pytest.param("abc", "bc", (1, 2), id="the first is removed"),
        pytest.param("abc", "ac", (0, 1), id="one between is removed: the others are not adjacent"),
        pytest.param("abc", "bcd", (1, 1), id="one is removed and one is added"),
        pytest.param("abc", "d", None, id="none stays"),
    ],
)
def test_the_longest_run_of_backends_that_are_still_wanted_stays_in_its_place(
    present: str, wanted: str, part: tuple[int, int] | None
) -> None:
    assert part_that_stays(endpoints(present), endpoints(wanted)) == part
