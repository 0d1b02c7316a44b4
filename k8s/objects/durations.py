"""Durations as in the Gateway API (GEP-2257): `500ms`, `1m30s`. Pure."""

from __future__ import annotations

import re

_DURATION = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}")
_PART = re.compile(r"([0-9]+)(ms|h|m|s)")
_MILLISECONDS = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}


def milliseconds(text: str) -> int | None:
    """None if the text is not such a duration. As in Go's time.ParseDuration, the parts may be in any order, and a unit
    may appear twice."""
    if not _DURATION.fullmatch(text):
        return None
    return sum(int(number) * _MILLISECONDS[unit] for number, unit in _PART.findall(text))
