"""Reading untrusted JSON-like values field by field, collecting faults and unknown fields by path.

Owns the wording of faults: `PATH: what is wrong, what is allowed`. Pure; never raises, whatever the value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TypeVar

_T = TypeVar("_T")

_SHOWN = 60
MAX_FAULTS = 32
"""Of one object; a hostile manifest must not fill the log."""

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
DNS_SUBDOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_DIGITS = re.compile(r"[0-9]{1,12}")


class ObjectError(ValueError):
    """A Service, Pod or Node that can't be used: object, field, what is wrong."""

    def __init__(self, name: str, faults: tuple[str, ...]) -> None:
        super().__init__(f"{name}: {'; '.join(faults)}")
        self.faults = faults


def shown(value: object) -> str:
    """The value as a message names it: short, printable, on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(value) if len(value) <= _SHOWN else f"{value[:40]!r}... ({len(value)} characters)"
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
    """What was found in one object."""

    faults: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    dropped: int = 0

    def fault(self, path: str, text: str) -> None:
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(f"{path}: {text}")
        else:
            self.dropped += 1

    def unknown_field(self, path: str, suggestion: str) -> None:
        if len(self.unknown) < MAX_FAULTS:
            self.unknown.append(f"{path} (did you mean {suggestion}?)" if suggestion else path)

    def all_faults(self) -> tuple[str, ...]:
        more = (f"and {self.dropped} more faults",) if self.dropped else ()
        return (*self.faults, *more)


class Fields:
    """A mapping at a path, read field by field; null counts as absent. `known` are the fields it may have."""

    def __init__(self, raw: object, path: str, report: Report, known: tuple[str, ...] | None = None) -> None:
        self.path = path
        self.report = report
        self._raw: dict[object, object] = {}
        if isinstance(raw, dict):
            self._raw = raw
        else:
            self.report.fault(path or "object", f"{shown(raw)} is no mapping")
        if known is not None:
            self._note_unknown(known)

    def _note_unknown(self, known: tuple[str, ...]) -> None:
        for key in self._raw:
            if isinstance(key, str) and key in known:
                continue
            near = get_close_matches(key, known, n=1) if isinstance(key, str) and len(key) <= _SHOWN else []
            name = key if isinstance(key, str) and key.isprintable() and len(key) <= _SHOWN else shown(key)
            self.report.unknown_field(self.at(name), near[0] if near else "")

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def fault(self, name: str, text: str) -> None:
        self.report.fault(self.at(name), text)

    def get(self, name: str) -> object:
        return self._raw.get(name)

    def has(self, name: str) -> bool:
        return self._raw.get(name) is not None

    def entries(self) -> Iterator[tuple[object, object]]:
        return iter(self._raw.items())

    def mapping(self, name: str, known: tuple[str, ...] | None = None) -> Fields | None:
        """The field's mapping, or None when it is absent."""
        raw = self.get(name)
        return None if raw is None else Fields(raw, self.at(name), self.report, known)

    def required(self, name: str, known: tuple[str, ...] | None = None) -> Fields | None:
        if not self.has(name):
            self.fault(name, "is missing, and is needed")
        return self.mapping(name, known)

    def items(self, name: str) -> list[tuple[str, object]]:
        """The field's list, each entry with its path; empty when it is absent."""
        raw = self.get(name)
        if raw is None:
            return []
        if not isinstance(raw, list):
            self.fault(name, f"{shown(raw)} is no list")
            return []
        return [(f"{self.at(name)}[{index}]", item) for index, item in enumerate(raw)]

    def text(self, name: str, check: Callable[[str], object], allowed: str, *, needed: bool = False) -> str:
        """A string that `check` accepts, else a fault. "" when absent or faulty; "" counts as absent."""
        raw = self.get(name)
        if raw is None or raw == "":
            if needed:
                self.fault(name, f"is missing, must be {allowed}")
            return ""
        if isinstance(raw, str) and check(raw):
            return raw
        self.fault(name, f"{shown(raw)} is wrong, must be {allowed}")
        return ""

    def boolean(self, name: str, default: bool) -> bool:
        raw = self.get(name)
        if isinstance(raw, bool) or raw is None:
            return default if raw is None else raw
        self.fault(name, f"{shown(raw)} is wrong, must be true or false (without quotes)")
        return default

    def integer(self, name: str, low: int, high: int, *, needed: bool = False, as_text: bool = False) -> int | None:
        """An integer in low..high (or, with `as_text`, a string of digits); None when absent or faulty."""
        raw = self.get(name)
        allowed = f"must be a whole number from {low} to {high}"
        if raw is None:
            if needed:
                self.fault(name, f"is missing, {allowed}")
            return None
        value = raw
        if as_text and isinstance(raw, str) and _DIGITS.fullmatch(raw):
            value = int(raw)
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self.fault(name, f"{shown(raw)} is wrong, {allowed}")
        return None

    def choice(self, name: str, choices: dict[str, _T]) -> _T | None:
        raw = self.get(name)
        if raw is None:
            return None
        if isinstance(raw, str) and raw in choices:
            return choices[raw]
        self.fault(name, f"{shown(raw)} is wrong, must be {' or '.join(choices)}")
        return None
