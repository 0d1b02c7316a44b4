"""The controller's decision: the verdict on a policy in the whole cluster (docs/architecture.md).

The numbers of nodes change all the time, so they are only in the two counts and not in the message: a message, and with
it a log line, changes only when there is something new to know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from actors.framework.messages import Message
from actors.messages.reports import PolicyCondition, PolicyState
from actors.messages.verdicts import Acceptance, ApplyVerdicts, PolicyVerdict
from actors.resolving.backends import namespaces_of, selected_pods, serving_pods
from actors.resolving.decision import Decided, reports
from actors.resolving.facts import Facts
from actors.resolving.frontends import Frontends, Servers, with_server_remark
from actors.resolving.policy_facts import PolicyFacts
from actors.resolving.reasons import why_no_backend, why_none_is_selected, why_out_of_force
from actors.resolving.wording import also, redirected
from config.settings import RedirectSettings
from config.wording import count
from k8s.objects.model import AddressFrontend, Pod, PolicySpec
from k8s.status.write_bodies import shortened

_WHERE = "every node that has a usable Pod of its own"
_REASONS = {
    PolicyState.CONFLICT: Acceptance.CONFLICT,
    PolicyState.INVALID: Acceptance.INVALID,
    PolicyState.DISABLED: Acceptance.DISABLED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    verdict: PolicyVerdict
    condition: PolicyCondition
    """For the log, /status and metrics: like an agent's, but over all nodes."""


class ClusterDecision:
    counts_nodes = True

    def __init__(self, redirect: RedirectSettings, servers: Servers | None = None) -> None:
        """`servers`: the addresses of the API server, for `with_server_remark`."""
        self._redirect = redirect
        self._servers = servers

    def decide(self, facts: PolicyFacts) -> Assessment:
        """Counts Pods that are Ready: only agents know which of them are `ended` or `unhealthy`."""
        policy = facts.policy
        spec = policy.spec
        selected = facts.nodes.selected(spec.node_selector) if spec else frozenset[str]()
        why = why_out_of_force(policy, facts.loss)
        if why is not None:
            return _assessment(facts, *why, selected=len(selected))
        assert spec is not None
        frontends = with_server_remark(policy, facts.frontends, self._servers)
        selected_backends = selected_pods(spec, facts.pods)
        serving = serving_pods(frontends, (pod for pod in selected_backends if pod.usable))
        local = [pod for pod in serving if pod.node in selected]
        if not selected:
            state = PolicyState.NODE_NOT_SELECTED
            why_not = "spec.config.nodeLabelSelector matches no node" if spec.node_selector else "there is no node"
        elif not frontends.ports:
            state, why_not = PolicyState.NO_FRONTEND, frontends.why_none
        elif not local:
            state, why_not = PolicyState.NO_BACKEND, self._why_no_backend(spec, selected_backends, serving)
        else:
            state, why_not = PolicyState.ACTIVE, ""
        number = count(len(frontends.ports), "frontend")
        in_force = redirected(number, f"on {_WHERE}", spec)
        message = f"{why_not}; clients take the normal way" if why_not else in_force
        return _assessment(
            facts,
            state,
            message + also(frontends.remark),
            selected=len(selected),
            ready=len({pod.node for pod in local}),
            frontends=frontends,
            usable_pods=len(local),
        )

    def _why_no_backend(self, spec: PolicySpec, selected: list[Pod], serving: list[Pod]) -> str:
        if serving:
            return "no usable Pod is on a node that spec.config.nodeLabelSelector matches"
        return why_no_backend(
            selected,
            (),
            none_selected=why_none_is_selected(namespaces_of(spec, self._redirect)),
            none_usable="no Pod that spec.backend.endpointSelector matches is Ready",
        )

    def pod_addresses(self, _facts: Facts) -> None:
        return None

    def messages(self, decided: Decided[Assessment]) -> Iterator[tuple[str, Message]]:
        verdicts = tuple(each.verdict for each in decided.outcomes)
        yield "StatusWriter", ApplyVerdicts(complete=decided.complete, verdicts=verdicts, removed=decided.removed)
        yield from reports(decided, tuple(each.condition for each in decided.outcomes))


def _assessment(
    facts: PolicyFacts,
    state: PolicyState,
    message: str,
    *,
    selected: int,
    ready: int = 0,
    frontends: Frontends | None = None,
    usable_pods: int = 0,
) -> Assessment:
    """`frontends` are those of a policy that is accepted; None for any other policy."""
    policy, message = facts.policy, shortened(message)
    in_force = policy.spec if frontends else None
    endpoints = tuple(frontend for frontend, _ in frontends.ports) if frontends else ()
    verdict = PolicyVerdict(
        key=policy.key,
        uid=policy.uid,
        generation=policy.generation,
        reason=_REASONS.get(state, Acceptance.ACCEPTED),
        message=message,
        frontend=_matched(policy.spec),
        frontends=tuple(map(str, endpoints)),
        nodes_ready=ready,
        nodes_selected=selected,
    )
    condition = PolicyCondition(
        key=policy.key,
        policy_id=policy.policy_id,
        state=state,
        reason=verdict.reason.value,
        message=message,
        shadow=in_force is not None and in_force.shadow,
        percentage=in_force.percentage if in_force else 100,
        frontends=endpoints,
        named_frontends=facts.frontends.named,
        usable_pods=usable_pods,
    )
    return Assessment(verdict=verdict, condition=condition)


def _matched(spec: PolicySpec | None) -> str:
    if spec is None:
        return ""
    return str(spec.frontend.ip) if isinstance(spec.frontend, AddressFrontend) else str(spec.frontend.service)
