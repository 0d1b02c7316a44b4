"""The agent's decision: what a policy asks of its node goes to MapWriter, what is to be said of it to the reporters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from actors.framework.messages import Message
from actors.messages.backends import BackendsSelected, PolicyBackends
from actors.messages.desired import ApplyDesiredState
from actors.resolving.decision import OF_NODE, Decided, reports
from actors.resolving.desired import Outcome, decide
from actors.resolving.frontends import Frontends, Servers, with_server_remark
from actors.resolving.indexes import NodeIndex
from config.domain.ids import NamespacedName, PolicyKey
from config.settings import RedirectSettings
from k8s.objects.claims import Loss
from k8s.objects.model import Pod, PodQuery, Policy, Service


class AgentDecision:
    scope = OF_NODE

    def __init__(self, redirect: RedirectSettings, servers: Servers | None = None) -> None:
        """`servers`: where the API server is, see `with_server_remark`."""
        self._redirect = redirect
        self._servers = servers
        self._selected: dict[PolicyKey, PolicyBackends] = {}
        """As ContainerWatcher was told."""

    def pod_queries(self, _policy: Policy) -> Iterable[PodQuery]:
        return ()  # this node's Pods are told anyway

    def decide(
        self,
        policy: Policy,
        *,
        frontends: Frontends,
        service: Service | None,
        pods: Iterable[Pod],
        out_of_use: Mapping[NamespacedName, str],
        nodes: NodeIndex,
        loss: Loss | None,
    ) -> Outcome:
        own = next(iter(nodes), None)
        frontends = with_server_remark(policy, frontends, self._servers)
        return decide(
            policy,
            frontends=frontends,
            service=service,
            pods=pods,
            out_of_use=out_of_use,
            node=own,
            loss=loss,
            redirect=self._redirect,
        )

    def messages(self, decided: Decided[Outcome]) -> Iterator[tuple[str, Message]]:
        # Otherwise only the number of conflicts changed: a BalancingPolicy won or lost, and those have no condition.
        if decided.complete or decided.outcomes or decided.removed or decided.pod_addresses is not None:
            yield (
                "MapWriter",
                ApplyDesiredState(
                    complete=decided.complete,
                    upserted=tuple(outcome.desired for outcome in decided.outcomes),
                    removed=decided.removed,
                    received_at=decided.received_at,
                    as_of=decided.as_of,
                    pod_addresses=decided.pod_addresses,
                ),
            )
            yield from self._selections(decided)
        yield from reports(decided, tuple(outcome.condition for outcome in decided.outcomes))

    def _selections(self, decided: Decided[Outcome]) -> Iterator[tuple[str, Message]]:
        changed = [
            outcome.backends
            for outcome in decided.outcomes
            if decided.complete or self._selected.get(outcome.backends.key) != outcome.backends
        ]
        if decided.complete:
            self._selected.clear()
        for key in decided.removed:
            self._selected.pop(key, None)
        self._selected.update((each.key, each) for each in changed)
        if decided.complete or changed or decided.removed:
            message = BackendsSelected(complete=decided.complete, policies=tuple(changed), removed=decided.removed)
            yield "ContainerWatcher", message
