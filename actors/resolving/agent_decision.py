"""The agent's decision: what a policy asks of its node goes to MapWriter, its condition to the reporters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from actors.framework.messages import Message
from actors.messages.backends import BackendsSelected, PolicyBackends
from actors.messages.checks import ChecksSelected, PolicyChecks
from actors.messages.desired import ApplyDesiredState
from actors.resolving.decision import Decided, reports
from actors.resolving.desired import Outcome, decide
from actors.resolving.facts import Facts
from actors.resolving.frontends import Servers, with_server_remark
from actors.resolving.last_sent import LastSent
from actors.resolving.policy_facts import PolicyFacts
from config.domain.addresses import Address
from config.settings import RedirectSettings


class AgentDecision:
    counts_nodes = False

    def __init__(self, redirect: RedirectSettings, servers: Servers | None = None) -> None:
        """`servers` are those of `with_server_remark`."""
        self._redirect = redirect
        self._servers = servers
        self._backends = LastSent(lambda key: PolicyBackends(key=key))
        """For ContainerWatcher."""
        self._checks = LastSent(lambda key: PolicyChecks(key=key))
        """For HealthChecker."""

    def decide(self, facts: PolicyFacts) -> Outcome:
        frontends = with_server_remark(facts.policy, facts.frontends, self._servers)
        return decide(replace(facts, frontends=frontends), self._redirect)

    def pod_addresses(self, facts: Facts) -> frozenset[Address]:
        return facts.pod_addresses

    def messages(self, decided: Decided[Outcome]) -> Iterator[tuple[str, Message]]:
        # If none of these changed, only the number of conflicts did: a BalancingPolicy, which has no rows, won or lost.
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
        complete, removed = decided.complete, decided.removed
        backends = self._backends.change(
            complete=complete, values=(outcome.backends for outcome in decided.outcomes), removed=removed
        )
        if backends is not None:
            yield "ContainerWatcher", BackendsSelected(**backends._asdict())
        checks = self._checks.change(
            complete=complete, values=(outcome.checks for outcome in decided.outcomes), removed=removed
        )
        if checks is not None:
            yield "HealthChecker", ChecksSelected(**checks._asdict())
