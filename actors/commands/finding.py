"""One check of `run.py doctor` and what it found."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    check: str
    ok: bool
    detail: str
    remedy: str = ""
    """What to do; "" when nothing is wrong."""


def judge(check: str, faults: list[str], ok_detail: str, remedy: str) -> Finding:
    """`ok_detail` is the detail when there are no faults."""
    return Finding(check, not faults, "; ".join(faults) or ok_detail, remedy if faults else "")
