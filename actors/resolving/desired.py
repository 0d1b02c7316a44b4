"""What one policy asks of this node, and its state there (P7, P9, P11 to P14, P21). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from actors.messages.backends import PolicyBackends, SelectedPod
from actors.messages.checks import CheckedPod, PolicyChecks
from actors.messages.desired import BackendPod, DesiredFrontend, DesiredPolicy
from actors.messages.reports import PolicyCondition, PolicyState
from actors.resolving.backends import (
    backend_endpoints,
    namespaces_of,
    selected_pods,
    serving_addresses,
    serving_pods,
    unusable_backends,
)
from actors.resolving.frontends import Frontends
from actors.resolving.policy_facts import PolicyFacts
from actors.resolving.reasons import (
    out_of_use_remark,
    why_no_backend,
    why_none_is_selected,
    why_none_is_usable,
    why_out_of_force,
)
from actors.resolving.wording import also, redirected
from config.domain.addresses import endpoint_order
from config.domain.ids import NamespacedName, PolicyKey
from config.settings import RedirectSettings
from config.wording import count
from k8s.objects.model import (
    DEFAULT_AFFINITY_SECONDS,
    LabelSelector,
    Node,
    Pod,
    Policy,
    PolicySpec,
    Service,
    ServiceFrontend,
)
from k8s.objects.selector import matches


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    desired: DesiredPolicy
    condition: PolicyCondition
    backends: PolicyBackends
    """The selected Pods that are usable according to the API."""
    checks: PolicyChecks
    """Those of them that have no ended container, if the policy has a check."""


def decide(facts: PolicyFacts, redirect: RedirectSettings) -> Outcome:
    """`facts` has the Pods of this node only."""
    policy, frontends = facts.policy, facts.frontends
    spec = policy.spec
    why = why_out_of_force(policy, facts.loss)
    if why is not None:
        return _out_of_force(policy, frontends, *why)
    assert spec is not None
    if not _selects_node(spec.node_selector, next(iter(facts.nodes), None)):
        message = "spec.config.nodeLabelSelector does not match this node's labels"
        return _out_of_force(policy, frontends, PolicyState.NODE_NOT_SELECTED, message)
    selected = selected_pods(spec, facts.pods)
    candidates = [pod for pod in selected if pod.usable]
    out_of_use = {**facts.unhealthy, **facts.ended}
    usable = [pod for pod in candidates if pod.key not in out_of_use]
    serving = serving_pods(frontends, usable)
    installed = tuple(
        DesiredFrontend(frontend=frontend, backends=endpoints)
        for frontend, port in frontends.ports
        if (endpoints := backend_endpoints(usable, frontend, port))
    )
    none_selected = why_none_is_selected(namespaces_of(spec, redirect), "on this node")
    state, message = _state(spec, frontends, selected, out_of_use, serving, installed, none_selected)
    excluded = selected if spec.skip_redirect_from_backend else []
    desired = DesiredPolicy(
        key=policy.key,
        uid=policy.uid,
        policy_id=policy.policy_id,
        in_force=True,
        limit=redirect.qos_limit if spec.qos_limit is None else spec.qos_limit,
        affinity_seconds=affinity_seconds(spec, facts.service),
        redirect_from_host=spec.redirect_from_host,
        shadow=spec.shadow,
        percentage=spec.percentage,
        frontends=installed,
        excluded=tuple(BackendPod(key=pod.key, uid=pod.uid, config_hash=pod.config_hash) for pod in excluded),
        unusable=unusable_backends(frontends, selected, usable),
    )
    condition = PolicyCondition(
        key=policy.key,
        policy_id=policy.policy_id,
        state=state,
        reason=state.value,
        message=message,
        shadow=spec.shadow,
        percentage=spec.percentage,
        frontends=tuple(frontend for frontend, _ in frontends.ports),
        named_frontends=frontends.named,
        backends=tuple(sorted({b for each in installed for b in each.backends}, key=endpoint_order)),
        usable_pods=len(serving),
        unhealthy_pods=len(candidates) - len(usable),
    )
    backends = PolicyBackends(key=policy.key, pods=tuple(map(_selected, candidates)))
    running = [pod for pod in candidates if pod.key not in facts.ended]
    checks = _checks(policy.key, spec, frontends, running, facts.unhealthy)
    return Outcome(desired=desired, condition=condition, backends=backends, checks=checks)


def _out_of_force(policy: Policy, frontends: Frontends, state: PolicyState, message: str) -> Outcome:
    return Outcome(
        desired=DesiredPolicy(key=policy.key, uid=policy.uid, policy_id=policy.policy_id, in_force=False),
        condition=PolicyCondition(
            key=policy.key,
            policy_id=policy.policy_id,
            state=state,
            reason=state.value,
            message=message,
            named_frontends=frontends.named,
        ),
        backends=PolicyBackends(key=policy.key),
        checks=PolicyChecks(key=policy.key),
    )


def _selects_node(selector: LabelSelector | None, node: Node | None) -> bool:
    return selector is None or matches(selector, node.labels if node else frozenset())


def _selected(pod: Pod) -> SelectedPod:
    return SelectedPod(
        key=pod.key,
        uid=pod.uid,
        config_hash=pod.config_hash,
        containers=pod.containers,
        has_runtime_class=bool(pod.runtime_class),
    )


def _checks(
    key: PolicyKey,
    spec: PolicySpec,
    frontends: Frontends,
    pods: Iterable[Pod],
    unhealthy: Mapping[NamespacedName, str],
) -> PolicyChecks:
    if spec.health_check is None:
        return PolicyChecks(key=key)
    checked = tuple(
        CheckedPod(key=pod.key, uid=pod.uid, address=address, why_out_of_use=unhealthy.get(pod.key, ""))
        for pod, address in serving_addresses(frontends, pods)
    )
    return PolicyChecks(key=key, check=spec.health_check, pods=checked) if checked else PolicyChecks(key=key)


def _state(
    spec: PolicySpec,
    frontends: Frontends,
    selected: list[Pod],
    out_of_use: Mapping[NamespacedName, str],
    serving: list[Pod],
    installed: tuple[DesiredFrontend, ...],
    none_selected: str,
) -> tuple[PolicyState, str]:
    """`none_selected` is the reason to give when the policy selects no Pod."""
    if not frontends.ports:
        return PolicyState.NO_FRONTEND, frontends.why_none
    if not installed:
        none_usable = why_none_is_usable(selected, out_of_use)
        why = why_no_backend(selected, out_of_use, none_selected=none_selected, none_usable=none_usable)
        return PolicyState.NO_BACKEND, f"{why}; clients take the normal way" + also(frontends.remark)
    number = len(frontends.ports)
    which = count(number, "frontend") if len(installed) == number else f"{len(installed)} of {number} frontends"
    message = redirected(which, f"to {count(len(serving), 'local Pod')}", spec)
    return PolicyState.ACTIVE, message + also(out_of_use_remark(selected, out_of_use)) + also(frontends.remark)


def affinity_seconds(spec: PolicySpec, service: Service | None) -> int:
    """P13: what the policy says, otherwise what its Service says; 0 means no session affinity."""
    named = service if isinstance(spec.frontend, ServiceFrontend) else None
    wanted = spec.session_affinity
    if wanted is None:
        wanted = named is not None and named.client_ip_affinity
    if not wanted:
        return 0
    if spec.affinity_seconds is not None:
        return spec.affinity_seconds
    return DEFAULT_AFFINITY_SECONDS if named is None else named.affinity_seconds
