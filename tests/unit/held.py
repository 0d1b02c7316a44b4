"""What an object holds in memory: for tests that nothing stays of what is gone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from actors.messages.facts import SourceName


def held(thing: object, path: str = "") -> Iterator[str]:
    """Names the collections in an object's attributes, at any depth, that are not empty."""
    names = vars(thing) if hasattr(thing, "__dict__") else {each: getattr(thing, each) for each in _slots(thing)}
    for name, value in names.items():
        where = f"{path}.{name}"
        if isinstance(value, dict) and value and all(isinstance(each, SourceName) for each in value):
            yield from (f"{where}[{source}]: {len(each)}" for source, each in value.items() if each)
        elif isinstance(value, (dict, set, list, deque)):
            if value:
                yield f"{where}: {len(value)}"
        elif type(value).__module__.split(".")[0] in {"actors", "bpf", "k8s"}:
            yield from held(value, where)


def _slots(thing: object) -> tuple[str, ...]:
    return tuple(getattr(thing, "__slots__", ()))
