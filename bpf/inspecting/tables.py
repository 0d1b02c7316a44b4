"""Rows as text tables for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def table(rows: Sequence[dict[str, object]]) -> str:
    """The keys of the first row are the columns. Lists are joined by commas, and objects are shown as key=value."""
    if not rows:
        return "nothing installed\n"
    cells = [[name.upper().replace("_", " ") for name in rows[0]]]
    cells += [[_cell(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells)
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "-"
    if isinstance(value, dict):
        return " ".join(f"{key}={each}" for key, each in value.items()) or "-"
    return str(value)
