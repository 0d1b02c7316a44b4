"""Which actors the controller has, in the order in which they start, and what each is given (docs/architecture.md).

They are the agent's actors without the kernel side, plus LeaderElector and StatusWriter. A controller process that does
not lead runs all of them as well, but its sources wait, so it watches nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from actors.controller.cluster_decision import ClusterDecision
from actors.controller.cluster_subscriptions import ClusterSubscriptions
from actors.controller.leader_elector import LeaderElector
from actors.controller.status_writer import StatusWriter
from actors.controller.waiting_source import WaitingSource
from actors.framework.supervisor import ChildSpec
from actors.reporting.metrics_exporter import MetricsExporter
from actors.reporting.status_reporter import StatusReporter
from actors.resolving.conflict_resolver import ConflictResolver
from actors.watching.endpoint_watcher import EndpointWatcher
from actors.watching.policy_watcher import PolicyWatcher
from actors.watching.service_watcher import ServiceWatcher
from actors.watching.sources import SourceFactory, Sources
from config.domain.ids import PolicyKind
from config.settings import Settings
from k8s.api.client import Api
from k8s.api.resource import Resource
from k8s.election.election import LEASE_DURATION_SECONDS, Election
from k8s.election.installations import Installations
from k8s.election.process_identity import new_identity, own_namespace
from k8s.sources import resources
from k8s.sources.kubernetes import KubernetesSource
from k8s.sources.source import Deliver, Source
from k8s.status.api_writer import ApiWriter
from k8s.status.write_requests import Write, WriteAnswer


def controller_specs(settings: Settings, on_lost: Callable[[str], None]) -> Sequence[ChildSpec]:
    """`on_lost` is called with a reason when another process has become the leader. Raises SourceConfigError."""
    api = Api(settings.source.kubeconfig)
    namespace = own_namespace(settings.source.kubeconfig)
    election = Election(
        api=api,
        namespace=namespace,
        identity=new_identity(),
        on_lost=on_lost,
        installations=Installations(api, namespace, LEASE_DURATION_SECONDS),
    )

    def source(*fixed: Resource) -> SourceFactory:
        def build(deliver: Deliver) -> Source:
            real = KubernetesSource(api=api, fixed=fixed, redirect=settings.redirect, deliver=deliver)
            return WaitingSource(real, election.when_elected)

        return build

    sources = Sources(
        policies=source(
            resources.policies(PolicyKind.LOCAL_REDIRECT, with_status=True), resources.policies(PolicyKind.BALANCING)
        ),
        services=source(),
        endpoints=source(resources.ALL_NODES),
        servers=api.servers(),
    )
    return specs_with(settings, sources, election, ApiWriter(api, election.identity).write)


def specs_with(
    settings: Settings, sources: Sources, election: Election, write: Callable[[Write], WriteAnswer]
) -> Sequence[ChildSpec]:
    """The elector starts first, so that it stops last; the others start as in the agent: reporters, writer,
    watchers."""
    return (
        ChildSpec("LeaderElector", lambda: LeaderElector.start(election=election)),
        ChildSpec(
            "StatusReporter",
            lambda: StatusReporter.start(
                node=settings.node_name,
                source=settings.source.kind,
                health=settings.health,
                datapath=None,
                leader=election,
            ),
        ),
        ChildSpec("MetricsExporter", lambda: MetricsExporter.start(metrics=settings.metrics)),
        ChildSpec("StatusWriter", lambda: StatusWriter.start(write=write, leads=election.leads)),
        ChildSpec(
            "ConflictResolver",
            lambda: ConflictResolver.start(
                datapath=settings.datapath,
                redirect=settings.redirect,
                decision=ClusterDecision(settings.redirect, sources.servers),
                subscriptions=ClusterSubscriptions(settings.redirect),
            ),
        ),
        ChildSpec("EndpointWatcher", lambda: EndpointWatcher.start(source=sources.endpoints)),
        ChildSpec("ServiceWatcher", lambda: ServiceWatcher.start(source=sources.services)),
        ChildSpec("PolicyWatcher", lambda: PolicyWatcher.start(source=sources.policies)),
    )
