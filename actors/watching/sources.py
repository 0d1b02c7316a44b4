"""Where the objects of an agent's watchers come from: the Kubernetes API or a directory, as configured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from config.domain.addresses import Address
from config.domain.ids import PolicyKind
from config.settings import Settings
from k8s.api.resource import Resource
from k8s.sources.directory import DirectorySource
from k8s.sources.source import Deliver, Source

SourceFactory: TypeAlias = Callable[[Deliver], Source]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The function with which each watcher makes its source."""

    policies: SourceFactory
    services: SourceFactory
    endpoints: SourceFactory
    servers: frozenset[tuple[Address, int]] | None = None
    """Addresses and ports of the API server that the objects come from; None for a directory."""


def agent_sources(settings: Settings) -> Sources:
    """The sources of the kind that `source.kind` names. Raises SourceConfigError."""
    return _directory_sources(settings) if settings.source.kind == "directory" else _kubernetes_sources(settings)


def _directory_sources(settings: Settings) -> Sources:
    def source(
        kinds: frozenset[str], reported_elsewhere: frozenset[str] = frozenset(), *, reports_files: bool = False
    ) -> SourceFactory:
        return lambda deliver: DirectorySource(
            settings.source.directory,
            kinds=kinds,
            node_name=settings.node_name,
            redirect=settings.redirect,
            deliver=deliver,
            reports_files=reports_files,
            reported_elsewhere=reported_elsewhere,
        )

    policies, services = frozenset(PolicyKind), frozenset({"Service"})
    return Sources(
        policies=source(policies),
        services=source(services, policies),
        endpoints=source(frozenset({"Pod", "Node"}), policies | services, reports_files=True),
    )


def _kubernetes_sources(settings: Settings) -> Sources:
    # Imported late, because the official client costs memory that the directory source does not need.
    from k8s.api.client import Api  # noqa: PLC0415
    from k8s.sources import resources  # noqa: PLC0415
    from k8s.sources.kubernetes import KubernetesSource  # noqa: PLC0415

    api = Api(settings.source.kubeconfig)

    def source(*fixed: Resource) -> SourceFactory:
        return lambda deliver: KubernetesSource(api=api, fixed=fixed, redirect=settings.redirect, deliver=deliver)

    return Sources(
        policies=source(*map(resources.policies, PolicyKind)),
        services=source(),
        endpoints=source(resources.pods_of_node(settings.node_name), resources.node(settings.node_name)),
        servers=api.servers(),
    )
