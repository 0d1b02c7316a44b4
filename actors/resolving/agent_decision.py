"""The agent's decision: what a policy asks of its node goes to MapWriter, what is to be said of it to the reporters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from actors.framework.messages import Message
from actors.messages.desired import ApplyDesiredState
from actors.resolving.decision import OF_NODE, Decided, reports
from actors.resolving.desired import Outcome, decide
from actors.resolving.frontends import Frontends, Servers, with_server_remark
from actors.resolving.indexes import NodeIndex
from config.settings import RedirectSettings
from k8s.objects.claims import Loss
from k8s.objects.model import Pod, PodQuery, Policy, Service


class AgentDecision:
    scope = OF_NODE

    def __init__(self, redirect: RedirectSettings, servers: Servers | None = None) -> None:
        """`servers`: where the API server is, see `with_server_remark`."""
        self._redirect = redirect
        self._servers = servers

    def pod_queries(self, _policy: Policy) -> Iterable[PodQuery]:
        return ()  # this node's Pods are told anyway

    def decide(
        self,
        policy: Policy,
        *,
        frontends: Frontends,
        service: Service | None,
        pods: Iterable[Pod],
        nodes: NodeIndex,
        loss: Loss | None,
    ) -> Outcome:
        own = next(iter(nodes), None)
        frontends = with_server_remark(policy, frontends, self._servers)
        return decide(
            policy, frontends=frontends, service=service, pods=pods, node=own, loss=loss, redirect=self._redirect
        )

    def messages(self, decided: Decided[Outcome]) -> Iterator[tuple[str, Message]]:
        # Else a BalancingPolicy lost or won, which has no condition: the number of conflicts alone changed.
        if decided.complete or decided.outcomes or decided.removed:
            yield (
                "MapWriter",
                ApplyDesiredState(
                    complete=decided.complete,
                    upserted=tuple(outcome.desired for outcome in decided.outcomes),
                    removed=decided.removed,
                    received_at=decided.received_at,
                    as_of=decided.as_of,
                ),
            )
        yield from reports(decided, tuple(outcome.condition for outcome in decided.outcomes))
