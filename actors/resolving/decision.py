"""What ConflictResolver is given to decide by: the agent's rules for its node, or the controller's for the cluster.

The resolver keeps the facts, settles conflicts, and says when something is decided. The decision says what follows for
one policy, and which actors hear of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from actors.framework.messages import Message
from actors.messages.reports import PoliciesResolved, PolicyCondition
from actors.resolving.frontends import Frontends
from actors.resolving.indexes import NodeIndex
from config.domain.addresses import Address
from config.domain.ids import NamespacedName, PolicyKey
from k8s.objects.claims import Loss
from k8s.objects.model import Pod, PodQuery, Policy, Service

T = TypeVar("T")
"""What was decided for one policy. It is compared with the last one, and sent only when it differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided(Generic[T]):
    """What was decided, for `Decision.messages`."""

    complete: bool
    outcomes: tuple[T, ...]
    """Those that changed; all when `complete`."""
    removed: tuple[PolicyKey, ...]
    conflicts: int
    received_at: float
    """Of the oldest event that led here."""
    as_of: float
    """When the oldest of the sources' newest listings was read."""
    pod_addresses: frozenset[Address] | None = None
    """Of all Pods that are there; None when they have not changed, and where no actor needs them."""


def reports(decided: Decided[Any], conditions: tuple[PolicyCondition, ...]) -> Iterator[tuple[str, Message]]:
    """The messages for the log, /status and the metrics, which are the same in the agent and in the controller."""
    resolved = PoliciesResolved(
        complete=decided.complete, conditions=conditions, removed=decided.removed, conflicts=decided.conflicts
    )
    for reporter in ("StatusReporter", "MetricsExporter"):
        yield reporter, resolved


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which facts there are, and which of them a decision needs."""

    asks_for_pods: bool
    """Pods must be asked for, by `Decision.pod_queries`; otherwise the source tells them anyway."""
    waits_for_facts: bool
    """A policy is decided only once the sources cover its Service and its Pods."""
    counts_nodes: bool
    """A Node that comes or goes concerns every policy, not only those that select Nodes."""
    tells_addresses: bool
    """The addresses of all Pods are sent as well."""


OF_NODE = Scope(asks_for_pods=False, waits_for_facts=False, counts_nodes=False, tells_addresses=True)
"""In an agent. A policy that is new does not wait for another one's Service."""
OF_CLUSTER = Scope(asks_for_pods=True, waits_for_facts=True, counts_nodes=True, tells_addresses=False)
"""In the controller. A verdict that holds for a moment would be written, and read, in vain."""


class Decision(Protocol[T]):
    @property
    def scope(self) -> Scope:
        """OF_NODE or OF_CLUSTER."""

    def pod_queries(self, policy: Policy) -> Iterable[PodQuery]:
        """The Pods that must be known to decide the policy. Empty where the source tells them anyway."""

    def decide(
        self,
        policy: Policy,
        *,
        frontends: Frontends,
        service: Service | None,
        pods: Iterable[Pod],
        ended: Mapping[NamespacedName, str],
        unhealthy: Mapping[NamespacedName, str],
        nodes: NodeIndex,
        loss: Loss | None,
    ) -> T:
        """`pods`: what the policy may select, in its namespaces. `ended` and `unhealthy`: those of them that don't
        serve although the API says that they are usable (P18, and P19 for this policy), and why."""

    def messages(self, decided: Decided[T]) -> Iterable[tuple[str, Message]]:
        """Names of actors, each with the message for it."""
