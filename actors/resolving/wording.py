"""Small parts of the sentences that people are told about a policy. Pure."""

from __future__ import annotations


def also(remark: str) -> str:
    """Appends a remark to a sentence; "" for none."""
    return f"; {remark}" if remark else ""


def count(number: int, what: str) -> str:
    """`1 frontend`, `2 frontends`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
