"""Which actors the agent has, in the order in which they start, and what each is given."""

from __future__ import annotations

import time
from collections.abc import Sequence

from actors.framework.supervisor import ChildSpec
from actors.health.container_watcher import ContainerWatcher
from actors.health.health_checker import HealthChecker
from actors.reporting.closer_state import CloserReport, closer_report
from actors.reporting.decision_recorder import DecisionRecorder
from actors.reporting.kernel_reading import read_kernel
from actors.reporting.metrics_exporter import MetricsExporter
from actors.reporting.status_endpoint import DatapathView
from actors.reporting.status_reporter import StatusReporter
from actors.resolving.agent_decision import AgentDecision
from actors.resolving.conflict_resolver import ConflictResolver
from actors.resolving.subscriptions import Subscriptions
from actors.watching.endpoint_watcher import EndpointWatcher
from actors.watching.policy_watcher import PolicyWatcher
from actors.watching.service_watcher import ServiceWatcher
from actors.watching.sources import Sources
from actors.writing.affinity_ager import AffinityAger
from actors.writing.clocks import read_clock
from actors.writing.lease import LeaseKeeper
from actors.writing.map_writer import MapWriter
from actors.writing.qos_ticker import QosTicker
from actors.writing.qos_windows import read_windows
from bpf.lifecycle.datapath import Datapath
from config.settings import Settings


def agent_specs(settings: Settings, sources: Sources, datapath: Datapath) -> Sequence[ChildSpec]:
    """Reporters start first, so that they see the first facts, and watchers last, so that nobody misses a fact."""

    def closer() -> CloserReport:
        enabled = settings.redirect.close_stale_sockets
        return closer_report(datapath.maps.closer(), enabled=enabled, now_ns=time.monotonic_ns())

    view = DatapathView(
        build=datapath.build,
        cgroup=str(datapath.cgroup),
        hooks=datapath.attached_hooks,
        lease_age_seconds=datapath.lease_age_seconds,
        before_us=datapath.programs_before_us,
        closer=closer,
        warnings=datapath.coverage_faults,
    )
    recorder = ChildSpec(
        "DecisionRecorder",
        lambda: DecisionRecorder.start(bpffs=settings.datapath.bpffs, redirects=settings.log.redirects),
    )
    has_recorder = settings.log.redirects != "none"
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
                metrics=settings.metrics, read=lambda: read_kernel(datapath, closer().state), build=datapath.build
            ),
        ),
        *((recorder,) if has_recorder else ()),
        ChildSpec("MapWriter", lambda: MapWriter.start(datapath=datapath, lease=lease)),
        ChildSpec(
            "ConflictResolver",
            lambda: ConflictResolver.start(
                datapath=settings.datapath,
                redirect=settings.redirect,
                decision=AgentDecision(settings.redirect, sources.servers),
                subscriptions=Subscriptions(),
            ),
        ),
        ChildSpec("ContainerWatcher", lambda: ContainerWatcher.start(cgroup=datapath.cgroup)),
        ChildSpec("HealthChecker", HealthChecker.start),
        ChildSpec("AffinityAger", AffinityAger.start),
        ChildSpec("QosTicker", lambda: QosTicker.start(read=lambda: read_windows(datapath.maps))),
        ChildSpec(
            "EndpointWatcher", lambda: EndpointWatcher.start(source=sources.endpoints, has_recorder=has_recorder)
        ),
        ChildSpec("ServiceWatcher", lambda: ServiceWatcher.start(source=sources.services)),
        ChildSpec("PolicyWatcher", lambda: PolicyWatcher.start(source=sources.policies)),
    )
