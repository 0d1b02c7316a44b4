"""The wait before the next try."""

from __future__ import annotations

from config.backoff import Backoff


def test_the_wait_doubles_with_each_failure_up_to_the_longest() -> None:
    backoff = Backoff(first=0.5, longest=30.0)
    assert [backoff.seconds(failures, 1.0) for failures in (1, 2, 3, 7, 100)] == [0.5, 1, 2, 30, 30]


def test_jitter_spreads_the_wait_between_one_half_and_the_whole() -> None:
    backoff = Backoff(first=0.5, longest=30.0)
    assert [backoff.seconds(1, jitter) for jitter in (0.0, 0.5, 1.0)] == [0.25, 0.375, 0.5]
