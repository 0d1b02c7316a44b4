"""The wait before the next attempt, and how it respects what a server asks for."""

from __future__ import annotations

import pytest

from config.backoff import Backoff


def test_the_wait_doubles_with_each_failure_up_to_the_longest() -> None:
    backoff = Backoff(first=0.5, longest=30.0)
    assert [backoff.seconds(failures, 1.0) for failures in (1, 2, 3, 7, 100)] == [0.5, 1, 2, 30, 30]


def test_jitter_spreads_the_wait_between_one_half_and_the_whole() -> None:
    backoff = Backoff(first=0.5, longest=30.0)
    assert [backoff.seconds(1, jitter) for jitter in (0.0, 0.5, 1.0)] == [0.25, 0.375, 0.5]


RETRY_AFTER = {
    "shorter than the back-off": (0.1, [0.25, 0.375, 0.5]),
    "longer than the back-off": (60.0, [60.0, 67.5, 75.0]),
}


@pytest.mark.parametrize("how", RETRY_AFTER)
def test_the_wait_is_never_shorter_than_the_server_asks_for(how: str) -> None:
    retry_after, waits = RETRY_AFTER[how]
    backoff = Backoff(first=0.5, longest=30.0)
    assert [backoff.seconds(1, jitter, retry_after=retry_after) for jitter in (0.0, 0.5, 1.0)] == waits
