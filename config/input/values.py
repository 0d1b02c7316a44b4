"""Readers of single values: each takes what YAML or JSON gave, and returns the value or raises WrongValue. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias, TypeVar

from config.input.faults import WrongValue

T = TypeVar("T")
Reader: TypeAlias = Callable[[object], T]

MAX_UINT32 = 2**32 - 1

_DIGITS = re.compile(r"[0-9]{1,12}")


def text(raw: object) -> str:
    if not isinstance(raw, str):
        raise WrongValue(raw, "a string")
    return raw


def boolean(raw: object) -> bool:
    if not isinstance(raw, bool):
        raise WrongValue(raw, "true or false (without quotes)")
    return raw


def whole_number(lowest: int, highest: int, *, quoted: bool = False) -> Reader[int]:
    """`quoted`: a string of digits is taken, too."""

    def read(raw: object) -> int:
        value = int(raw) if quoted and isinstance(raw, str) and _DIGITS.fullmatch(raw) else raw
        # bool is a subclass of int, and `port: yes` is a mistake.
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise WrongValue(raw, f"a whole number from {lowest} to {highest}")
        return value

    return read


def one_of(*words: str) -> Reader[str]:
    def read(raw: object) -> str:
        if not isinstance(raw, str) or raw not in words:
            raise WrongValue(raw, " or ".join(words))
        return raw

    return read


def list_of(read_item: Reader[T], items: str) -> Reader[list[T]]:
    """`items`: what the list holds, for messages."""

    def read(raw: object) -> list[T]:
        if not isinstance(raw, list):
            raise WrongValue(raw, f"a list of {items}")
        return [_read_item(read_item, index, item) for index, item in enumerate(raw)]

    return read


def _read_item(read: Reader[T], index: int, item: object) -> T:
    try:
        return read(item)
    except WrongValue as wrong:
        wrong.inside = f"[{index}]{wrong.inside}"
        raise
