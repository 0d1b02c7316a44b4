"""The two clocks by which a lease is judged."""

from __future__ import annotations

import time
from typing import NamedTuple


class Clock(NamedTuple):
    monotonic_ns: int
    boottime_ns: int
    """Advances even while the machine sleeps."""


def read_clock() -> Clock:
    return Clock(time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME))
