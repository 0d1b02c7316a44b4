"""Reading an untrusted mapping field by field; faults and unknown fields are reported by their path. Pure.

Nothing here raises, whatever the input holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from config.input import values
from config.input.faults import Report, WrongValue, shown

_T = TypeVar("_T")


class Fields:
    """The mapping at a path. Null counts as absent. `known` are the fields that it may have; None: any."""

    def __init__(self, raw: object, path: str, report: Report, known: tuple[str, ...] | None = None) -> None:
        self.path = path
        self.report = report
        self._raw: dict[object, object] = {}
        if isinstance(raw, dict):
            self._raw = raw
        else:
            keys = f" with the keys {', '.join(known)}" if known else ""
            self.report.fault(path or "object", f"{shown(raw)} is wrong; it must be a mapping{keys}")
        if known is not None:
            self._report_unknown(known)

    def _report_unknown(self, known: tuple[str, ...]) -> None:
        for key in self._raw:
            if not isinstance(key, str) or key not in known:
                self.report.unknown_field(self.path, key, known)

    def at(self, name: str) -> str:
        """The path of a field of this mapping."""
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
        """As `mapping`; a field that is absent is a fault."""
        if not self.has(name):
            self.fault(name, "is missing; it is required")
        return self.mapping(name, known)

    def items(self, name: str) -> list[tuple[str, object]]:
        """The field's list, each entry with its path; empty when it is absent."""
        raw = self.get(name)
        if raw is None:
            return []
        if not isinstance(raw, list):
            self.fault(name, f"{shown(raw)} is wrong; it must be a list")
            return []
        return [(f"{self.at(name)}[{index}]", item) for index, item in enumerate(raw)]

    def read(self, name: str, reader: values.Reader[_T]) -> _T | None:
        """What the reader makes of the field; None when the field is absent or faulty."""
        raw = self.get(name)
        if raw is None:
            return None
        try:
            return reader(raw)
        except WrongValue as wrong:
            self.fault(f"{name}{wrong.inside}", str(wrong))
            return None

    def text(self, name: str, check: Callable[[str], object], allowed: str, *, needed: bool = False) -> str:
        """A string that `check` accepts, else a fault. "" when absent or faulty; "" counts as absent."""
        raw = self.get(name)
        if raw is None or raw == "":
            if needed:
                self.fault(name, f"is missing; it must be {allowed}")
            return ""
        if isinstance(raw, str) and check(raw):
            return raw
        self.fault(name, str(WrongValue(raw, allowed)))
        return ""

    def boolean(self, name: str, default: bool) -> bool:
        found = self.read(name, values.boolean)
        return default if found is None else found

    def integer(self, name: str, low: int, high: int, *, needed: bool = False, quoted: bool = False) -> int | None:
        """An integer in low..high (or, with `quoted`, a string of digits); None when absent or faulty."""
        if needed and not self.has(name):
            self.fault(name, f"is missing; it must be a whole number from {low} to {high}")
        return self.read(name, values.whole_number(low, high, quoted=quoted))

    def choice(self, name: str, choices: dict[str, _T]) -> _T | None:
        """What the field's word stands for; None when absent or faulty."""
        word = self.read(name, values.one_of(*choices))
        return None if word is None else choices[word]
