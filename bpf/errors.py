"""The error type of the kernel side."""

from __future__ import annotations


class DatapathError(Exception):
    """Its text is for the operator: what failed, on what, and what to do."""
