"""Parts of sentences that messages of all packages share. Pure."""

from __future__ import annotations


def count(number: int, what: str) -> str:
    """`1 frontend`, `2 frontends`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
