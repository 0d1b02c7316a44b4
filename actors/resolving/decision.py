"""What follows for one policy, and who receives it: the agent decides that for its node, the controller for all nodes.

ConflictResolver keeps the facts, settles conflicts, and says when something is decided. The wirings give it a decision,
and `Subscriptions`, which say what the watchers are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from actors.framework.messages import Message
from actors.messages.reports import REPORTERS, PoliciesResolved, PolicyCondition
from actors.resolving.facts import Facts
from actors.resolving.policy_facts import PolicyFacts
from config.domain.addresses import Address
from config.domain.ids import PolicyKey

T = TypeVar("T")
"""What was decided for one policy. It is sent only when it differs from what was decided before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided(Generic[T]):
    """What was decided, for `Decision.messages`."""

    complete: bool
    outcomes: tuple[T, ...]
    """Those that changed; all when `complete`."""
    removed: tuple[PolicyKey, ...]
    conflicts: int
    received_at: float
    """time.monotonic() at which the oldest event behind this decision was received."""
    as_of: float
    """time.monotonic() at which the oldest of the sources' newest listings was read."""
    pod_addresses: frozenset[Address] | None = None
    """The addresses of all Pods; None when they have not changed, and in the controller."""


def reports(decided: Decided[Any], conditions: tuple[PolicyCondition, ...]) -> Iterator[tuple[str, Message]]:
    """The messages for the log, /status and the metrics, which are the same in the agent and in the controller."""
    resolved = PoliciesResolved(
        complete=decided.complete, conditions=conditions, removed=decided.removed, conflicts=decided.conflicts
    )
    for reporter in REPORTERS:
        yield reporter, resolved


class Decision(Protocol[T]):
    @property
    def counts_nodes(self) -> bool:
        """Whether `decide` counts Nodes, so that one that comes or goes concerns every policy. Otherwise a Node
        concerns only the policies that select Nodes."""

    def decide(self, facts: PolicyFacts) -> T:
        """Returns what follows from the facts for this one policy."""

    def pod_addresses(self, facts: Facts) -> frozenset[Address] | None:
        """The addresses of all Pods, if `messages` sends them; otherwise None."""

    def messages(self, decided: Decided[T]) -> Iterable[tuple[str, Message]]:
        """Names of actors, each with the message for it."""
