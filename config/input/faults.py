"""The faults of one piece of input: how they are worded, and a report that collects them. Pure.

Every fault, of the configuration and of a manifest alike, reads `PATH: VALUE is wrong; it must be ALLOWED`, and for
a field that nobody knows `PATH: is unknown (did you mean FIELD?); it must be one of ALLOWED`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import NamedTuple

MAX_SHOWN = 60
"""Characters of a value that a message repeats."""
MAX_FAULTS = 32
"""Faults that are kept of one object, so that a hostile manifest can't fill the log."""


class WrongValue(ValueError):
    """A value that is not allowed. The text says what is wrong and what is allowed."""

    def __init__(self, raw: object, allowed: str) -> None:
        super().__init__(f"{shown(raw)} is wrong; it must be {allowed}")
        self.inside = ""
        """Where the value stands within its field, such as `[2]`."""


class Fault(NamedTuple):
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


def unknown_field(parent: str, name: object, known: tuple[str, ...]) -> Fault:
    """The fault of a field, or of a key of the configuration, that is not among those that its parent may have.

    `parent` is the path of the mapping; "" at the top."""
    is_plain = isinstance(name, str) and name.isprintable() and len(name) <= MAX_SHOWN
    text = str(name) if is_plain else shown(name)
    near = get_close_matches(text, known, n=1) if is_plain else []
    meant = f" (did you mean {near[0]}?)" if near else ""
    allowed = f"it must be one of {', '.join(known)}" if known else "the mapping must be empty"
    return Fault(f"{parent}.{text}" if parent else text, f"is unknown{meant}; {allowed}")


def shown(value: object) -> str:
    """The value as a message repeats it: short, printable, on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(value) if len(value) <= MAX_SHOWN else f"{value[:40]!r}... ({len(value)} characters)"
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 128 else "a huge number"
    if isinstance(value, float):
        return str(value)
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return f"a {type(value).__name__}"


@dataclass(slots=True)
class Report:
    """What was found in one object or one file."""

    faults: list[Fault] = field(default_factory=list)
    unknown: list[Fault] = field(default_factory=list)
    """Unknown fields. Whether one is a fault depends on the reader: an agent only warns of those of a policy."""
    dropped: int = 0
    """Faults beyond MAX_FAULTS."""

    def fault(self, path: str, text: str) -> None:
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(Fault(path, text))
        else:
            self.dropped += 1

    def unknown_field(self, parent: str, name: object, known: tuple[str, ...]) -> None:
        """Adds the fault that the function `unknown_field` makes of these parameters."""
        if len(self.unknown) < MAX_FAULTS:
            self.unknown.append(unknown_field(parent, name, known))

    def all_faults(self) -> tuple[str, ...]:
        more = (f"and {self.dropped} more faults",) if self.dropped else ()
        return (*map(str, self.faults), *more)
