"""What was last sent to one actor about each policy, so that only changes are sent. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, Protocol, TypeVar

from config.domain.ids import PolicyKey


class _OfPolicy(Protocol):
    @property
    def key(self) -> PolicyKey: ...


T = TypeVar("T", bound=_OfPolicy)


class UnsentChange(NamedTuple, Generic[T]):
    complete: bool
    policies: tuple[T, ...]
    removed: tuple[PolicyKey, ...]


class LastSent(Generic[T]):
    def __init__(self, nothing: Callable[[PolicyKey], T]) -> None:
        """`nothing` makes the value of a policy about which there is nothing to send."""
        self._nothing = nothing
        self._sent: dict[PolicyKey, T] = {}
        """Policy -> the value that was last sent, unless it is `nothing`."""

    def change(self, *, complete: bool, values: Iterable[T], removed: Iterable[PolicyKey]) -> UnsentChange[T] | None:
        """`values` are those of the policies that were decided again, or of all policies when `complete`. Returns what
        to send; None when nothing has changed."""
        if complete:
            self._sent.clear()
        gone = tuple(key for key in removed if self._sent.pop(key, None) is not None)
        changed = tuple(each for each in values if each != self._sent.get(each.key, self._nothing(each.key)))
        for each in changed:
            self._sent[each.key] = each
            if each == self._nothing(each.key):
                del self._sent[each.key]
        return UnsentChange(complete, changed, gone) if complete or changed or gone else None
