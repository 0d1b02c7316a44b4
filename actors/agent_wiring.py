"""Which actors there are, in the order in which they start, and what each is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from actors.framework.supervisor import ChildSpec
from actors.health.container_watcher import ContainerWatcher
from actors.reporting.metrics import KernelReading
from actors.reporting.metrics_exporter import MetricsExporter
from actors.reporting.status_reporter import DatapathView, StatusReporter
from actors.resolving.agent_decision import AgentDecision
from actors.resolving.conflict_resolver import ConflictResolver
from actors.watching.endpoint_watcher import EndpointWatcher
from actors.watching.policy_watcher import PolicyWatcher
from actors.watching.service_watcher import ServiceWatcher
from actors.watching.watcher import SourceFactory, Sources
from actors.writing.affinity_ager import AffinityAger
from actors.writing.lease import LeaseKeeper, read_clock
from actors.writing.map_writer import MapWriter
from actors.writing.qos_ticker import QosTicker
from bpf.datapath import Datapath
from bpf.rows import PolicyRow, Window
from config.domain.ids import PolicyKind
from config.settings import Settings
from k8s.api.resource import Resource
from k8s.sources.directory import DirectorySource

_COUNTED_MAPS = ("frontends", "backends", "backend_cgroups", "windows", "affinity", "counters", "policies")


def directory_sources(settings: Settings) -> Sources:
    def source(kinds: frozenset[str], *, reports_files: bool = False) -> SourceFactory:
        return lambda deliver: DirectorySource(
            settings.source.directory,
            kinds=kinds,
            node_name=settings.node_name,
            redirect=settings.redirect,
            deliver=deliver,
            reports_files=reports_files,
        )

    return Sources(
        policies=source(frozenset(PolicyKind), reports_files=True),
        services=source(frozenset({"Service"})),
        endpoints=source(frozenset({"Pod", "Node"})),
    )


def kubernetes_sources(settings: Settings) -> Sources:
    # Late: the official client costs memory that the directory source does not need.
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


def find_sources(settings: Settings) -> Sources:
    """Those of `source.kind`. Raises SourceConfigError."""
    return directory_sources(settings) if settings.source.kind == "directory" else kubernetes_sources(settings)


def child_specs(settings: Settings, sources: Sources, datapath: Datapath) -> Sequence[ChildSpec]:
    """Reporters first, so that they see the first facts; watchers last, so that nobody misses theirs."""
    view = DatapathView(
        build=datapath.build,
        cgroup=str(datapath.cgroup),
        hooks=datapath.attached_hooks,
        lease_age_seconds=datapath.lease_age_seconds,
        before_us=datapath.programs_before_us,
        warnings=datapath.warnings,
    )
    lease = LeaseKeeper(settings.datapath.lease_seconds, read_clock())
    return (
        ChildSpec(
            "StatusReporter",
            lambda: StatusReporter.start(
                node=settings.node_name, source=settings.source.kind, health=settings.health, datapath=view
            ),
        ),
        ChildSpec(
            "MetricsExporter",
            lambda: MetricsExporter.start(
                metrics=settings.metrics, read=_kernel_reader(datapath), build=datapath.build
            ),
        ),
        ChildSpec("MapWriter", lambda: MapWriter.start(datapath=datapath, lease=lease)),
        ChildSpec(
            "ConflictResolver",
            lambda: ConflictResolver.start(
                datapath=settings.datapath,
                redirect=settings.redirect,
                decision=AgentDecision(settings.redirect, sources.servers),
            ),
        ),
        ChildSpec("ContainerWatcher", lambda: ContainerWatcher.start(cgroup=datapath.cgroup)),
        ChildSpec("AffinityAger", AffinityAger.start),
        ChildSpec("QosTicker", lambda: QosTicker.start(read=_window_reader(datapath))),
        ChildSpec("EndpointWatcher", lambda: EndpointWatcher.start(source=sources.endpoints)),
        ChildSpec("ServiceWatcher", lambda: ServiceWatcher.start(source=sources.services)),
        ChildSpec("PolicyWatcher", lambda: PolicyWatcher.start(source=sources.policies)),
    )


def _kernel_reader(datapath: Datapath) -> Callable[[], KernelReading]:
    def read() -> KernelReading:
        maps = datapath.maps
        counts = {name: sum(1 for _ in maps[name].items()) for name in _COUNTED_MAPS if name != "backends"}
        counts["backends"] = sum(row.count for row in maps.frontend_rows())
        return KernelReading(
            counters=maps.counters(),
            entries=counts,
            capacity={name: maps[name].max_entries for name in _COUNTED_MAPS},
            attached=frozenset(datapath.attached_hooks()),
            counted={policy_id: row.name for policy_id, row in maps.counted_policies().items()},
        )

    return read


def _window_reader(datapath: Datapath) -> Callable[[], tuple[Mapping[int, Window], Mapping[int, PolicyRow]]]:
    def read() -> tuple[Mapping[int, Window], Mapping[int, PolicyRow]]:
        windows = datapath.maps.windows()
        return windows, datapath.maps.policy_rows() if windows else {}

    return read
