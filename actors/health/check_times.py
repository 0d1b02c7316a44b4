"""When checks begin. Pure."""

from __future__ import annotations

STEPS = 10
"""Parts of an interval. Checks begin only at the start of a step, many together, since waking up costs as much as
several checks."""
_GOLDEN = 0.618033988749895
"""The golden ratio's fraction: the fractions of its multiples are spread evenly over 0 to 1, however many there are."""


def first_time(number: int, interval: float, now: float) -> float:
    """When the check with this number begins for the first time, within the next interval. The steps of an interval are
    at the same times for all checks that have it."""
    step = interval / STEPS
    return (now // step + 1 + int(number * _GOLDEN % 1.0 * STEPS)) * step


def next_time(due_at: float, interval: float, now: float) -> float:
    """When the check after the one at `due_at` begins. If several such times have passed already, it is the last of
    them, so that the others are skipped."""
    following = due_at + interval
    if now > following:
        following += (now - following) // interval * interval
    return following
