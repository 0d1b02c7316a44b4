"""What can go wrong with the kernel side, as one error type."""

from __future__ import annotations


class DatapathError(Exception):
    """Its text is for the operator: what failed, on what, and what to do."""
