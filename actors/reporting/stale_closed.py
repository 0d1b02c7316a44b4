"""How many stale sockets were closed for each policy. The closer counts them by frontend (P20)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from actors.messages.reports import PolicyCondition
from config.domain.addresses import Frontend


class StaleClosed:
    """Remembers which policy had a frontend last, so that a policy keeps its number while it is out of force and has no
    frontends."""

    def __init__(self) -> None:
        self._policy_of: dict[Frontend, str] = {}

    def by_policy(self, conditions: Iterable[PolicyCondition], closed: Mapping[Frontend, int]) -> dict[str, int]:
        """Name of each policy -> number of sockets."""
        totals = {condition.key.name: 0 for condition in conditions}
        self._policy_of = {frontend: name for frontend, name in self._policy_of.items() if name in totals}
        for condition in conditions:
            self._policy_of.update(dict.fromkeys(condition.frontends, condition.key.name))
        for frontend, number in closed.items():
            name = self._policy_of.get(frontend)
            if name is not None:
                totals[name] += number
        return totals
