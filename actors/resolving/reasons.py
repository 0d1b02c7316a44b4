"""Sentences for operators: why a policy is out of force, or redirects nothing, and which Pods are out of use. Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from actors.messages.reports import PolicyState
from config.domain.ids import NamespacedName
from k8s.objects.claims import Loss
from k8s.objects.model import Pod, Policy

_NAMED_PODS = 3
"""Number of Pods that a message names."""


def why_out_of_force(policy: Policy, loss: Loss | None) -> tuple[PolicyState, str] | None:
    """State and message of a policy that is out of force in the whole cluster; None for any other policy."""
    if policy.spec is None:
        return PolicyState.INVALID, "; ".join(policy.faults)
    if not policy.spec.enabled:
        return PolicyState.DISABLED, "spec.enabled is false"
    if loss is not None:
        return PolicyState.CONFLICT, f"{loss.what} is held by {loss.winner.kind} {loss.winner.name}, which is older"
    return None


def why_no_backend(
    selected: Sequence[Pod],
    out_of_use: Container[NamespacedName],
    *,
    none_selected: str,
    none_usable: str,
) -> str:
    """Returns why none of a policy's Pods serves a frontend.

    `out_of_use` are the Pods that do not serve although the API says that they are usable. `none_selected` is the
    reason when the policy selects no Pod, and `none_usable` is the reason when it selects some.
    """
    if any(pod.usable and pod.key not in out_of_use for pod in selected):
        return "no usable Pod has an IP of the frontends' address family"
    return none_usable if selected else none_selected


def why_none_is_selected(namespaces: frozenset[str] | None, where: str = "") -> str:
    """`namespaces` are those of the backend Pods (P6); None means all. `where` is "on this node" in an agent."""
    why = " ".join(filter(None, ("no Pod", where, "matches spec.backend.endpointSelector")))
    if namespaces is None:
        return why
    if not namespaces:
        return "redirect.address_backend_namespaces of the configuration allows no namespace"
    names = ", ".join(sorted(namespaces))
    return f"{why} in the namespaces that the agent searches ({names}); set spec.backend.namespace to use another one"


def why_none_is_usable(selected: Sequence[Pod], out_of_use: Mapping[NamespacedName, str]) -> str:
    names = [f"{pod.key} ({_why_unusable(pod, out_of_use)})" for pod in selected]
    matching = "1 Pod matches" if len(selected) == 1 else f"{len(selected)} Pods match"
    return f"{matching}, none is usable: {_listed(names)}"


def out_of_use_remark(selected: Sequence[Pod], out_of_use: Mapping[NamespacedName, str]) -> str:
    """Names the Pods that the API calls usable and that are out of use; "" for none."""
    names = [f"{pod.key} ({out_of_use[pod.key]})" for pod in selected if pod.usable and pod.key in out_of_use]
    if not names:
        return ""
    are = "Pod is" if len(names) == 1 else "Pods are"
    return f"{len(names)} Ready {are} out of use: {_listed(names)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join([*names[:_NAMED_PODS], *(["..."] if len(names) > _NAMED_PODS else [])])


def _why_unusable(pod: Pod, out_of_use: Mapping[NamespacedName, str]) -> str:
    if pod.terminating:
        return "being deleted"
    if not pod.ips:
        return "no IP"
    return out_of_use.get(pod.key, "not Ready") if pod.ready else "not Ready"
