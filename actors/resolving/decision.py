"""The part of ConflictResolver in which the agent, which decides for its node, and the controller differ.

The resolver keeps the facts, settles conflicts, and says when something is decided. The decision says what follows for
one policy, and which actors receive it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from actors.framework.messages import Message
from actors.messages.reports import REPORTERS, PoliciesResolved, PolicyCondition
from actors.resolving.policy_facts import PolicyFacts
from config.domain.addresses import Address
from config.domain.ids import PolicyKey
from k8s.objects.model import PodQuery, Policy

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a decision needs from the facts."""

    asks_for_pods: bool
    """Whether Pods must be asked for (`Decision.pod_queries`). Otherwise the source delivers them anyway."""
    waits_for_facts: bool
    """Whether a policy is decided only once the sources cover its Service and its Pods."""
    counts_nodes: bool
    """Whether a Node that comes or goes concerns every policy, not only those that select Nodes."""
    sends_pod_addresses: bool
    """Whether the addresses of all Pods are sent as well."""


OF_NODE = Scope(asks_for_pods=False, waits_for_facts=False, counts_nodes=False, sends_pod_addresses=True)
"""In an agent. It does not wait for facts: a subscription is confirmed as a whole, so a policy would wait until the
Services of other policies are listed, too."""
OF_CLUSTER = Scope(asks_for_pods=True, waits_for_facts=True, counts_nodes=True, sends_pod_addresses=False)
"""In the controller. It waits for facts, so that it writes no verdict that is wrong a moment later."""


class Decision(Protocol[T]):
    @property
    def scope(self) -> Scope:
        """OF_NODE or OF_CLUSTER."""

    def pod_queries(self, policy: Policy) -> Iterable[PodQuery]:
        """The Pods that must be known to decide the policy. Empty where the source delivers them anyway."""

    def decide(self, facts: PolicyFacts) -> T:
        """Returns what follows from the facts for this one policy."""

    def messages(self, decided: Decided[T]) -> Iterable[tuple[str, Message]]:
        """Names of actors, each with the message for it."""
