"""Everything that is known about one policy when it is decided. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from actors.resolving.frontends import Frontends
from actors.resolving.indexes import NodeIndex
from config.domain.ids import NamespacedName
from k8s.objects.claims import Loss
from k8s.objects.model import Pod, Policy, Service


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFacts:
    policy: Policy
    frontends: Frontends
    service: Service | None
    """The Service that spec.frontend names, if it exists."""
    pods: Sequence[Pod]
    """The Pods in the namespaces of the policy's backends, which the policy may or may not select."""
    ended: Mapping[NamespacedName, str]
    """Those of the Pods that have a container without a process (P18) -> why they are out of use."""
    unhealthy: Mapping[NamespacedName, str]
    """Those of the Pods that failed this policy's health check (P19) -> why they are out of use."""
    nodes: NodeIndex
    """In an agent, its own Node only."""
    loss: Loss | None
    """The conflict that the policy lost (P8)."""
