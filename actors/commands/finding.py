"""One check of `run.py doctor` and what it found."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    check: str
    ok: bool
    detail: str
    remedy: str = ""
    """What to do; "" when nothing is wrong."""


def judged(check: str, faults: list[str], well: str, remedy: str) -> Finding:
    """`well` says what is so when there are no faults."""
    return Finding(check, not faults, "; ".join(faults) or well, remedy if faults else "")
