"""The facts about one policy, as ConflictResolver would have them for the objects of a test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from actors.resolving.frontends import find_frontends
from actors.resolving.indexes import NodeIndex
from actors.resolving.policy_facts import PolicyFacts
from config.domain.ids import NamespacedName
from config.settings import DatapathSettings
from k8s.objects.claims import Loss
from k8s.objects.model import Node, Pod, Policy, Service

NONE: Mapping[NamespacedName, str] = MappingProxyType({})


def policy_facts(
    policy: Policy,
    pods: Iterable[Pod],
    *,
    service: Service | None,
    nodes: Iterable[Node],
    loss: Loss | None = None,
    ended: Mapping[NamespacedName, str] = NONE,
    unhealthy: Mapping[NamespacedName, str] = NONE,
    datapath: DatapathSettings | None = None,
) -> PolicyFacts:
    index = NodeIndex()
    for node in nodes:
        index.put(node)
    return PolicyFacts(
        policy=policy,
        frontends=find_frontends(policy, service, datapath or DatapathSettings()),
        service=service,
        pods=tuple(pods),
        ended=ended,
        unhealthy=unhealthy,
        nodes=index,
        loss=loss,
    )
