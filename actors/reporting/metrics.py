"""Every metric, declared once; names and labels are a contract (docs/metrics.md). Kernel counters: read at scrape."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from actors.messages.facts import SourceName
from actors.messages.reports import PolicyCondition, PolicyState
from actors.reporting.kernel_reading import KernelReading
from bpf.build import HOOKS
from bpf.rows import Counters, PassReason
from config.version import VERSION
from k8s.sources.source import NOTHING_TO_HEAR

_log = logging.getLogger(__name__)
_PREFIX = "localredirect"
_APPLY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class AgentMetrics:
    """The registry and the metrics that the exporter sets itself."""

    def __init__(
        self,
        *,
        conditions: Callable[[], list[PolicyCondition]],
        read: Callable[[], KernelReading] | None,
        build: str,
    ) -> None:
        """The agent gives the name of its build of kernel programs (`bpf.build.build_name`) and reads kernel counters.

        The controller has no kernel side: `build` is empty, `read` is None, and it counts its writes instead.
        """
        # They would double the series, under names that are in no contract.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        # First, so that a scrape that can't read the kernel counts itself.
        self.registry.register(_KernelCollector(self, conditions, read))
        info = Gauge(
            "build_info",
            "1; the labels are the release, and the build of the kernel programs.",
            ["version", "build"],
            namespace=_PREFIX,
            registry=self.registry,
        )
        info.labels(VERSION, build).set(1)
        self.policy_conflicts = Gauge(
            "policy_conflicts", "Policies out of force by conflict.", namespace=_PREFIX, registry=self.registry
        )
        self.apply_seconds = Histogram(
            "apply_seconds",
            "Event received to kernel written.",
            namespace=_PREFIX,
            buckets=_APPLY_BUCKETS,
            registry=self.registry,
        )
        self.source_relists = Counter(
            "source_relists", "New listings.", ["source", "reason"], namespace=_PREFIX, registry=self.registry
        )
        self.mailbox_size = Gauge(
            "actor_mailbox_size", "Messages that wait.", ["actor"], namespace=_PREFIX, registry=self.registry
        )
        self.collect_errors = Counter(
            "collect_errors", "Scrapes that could not read the kernel.", namespace=_PREFIX, registry=self.registry
        )
        self.writes: Counter | None = None
        if read is None:
            self.writes = Counter(
                "api_writes", "Policy status and Events.", ["what", "result"], namespace=_PREFIX, registry=self.registry
            )
        self.restarts: dict[str, int] = {}
        """Actor -> restarts, as the supervisor counts them. Replaced whole: a scrape reads it in another thread."""
        self.heard: dict[SourceName, float] = {}
        """As each source told last (`k8s.sources.source.Heard.heard_at`). Replaced whole as well."""


class _KernelCollector(Collector):
    def __init__(
        self,
        metrics: AgentMetrics,
        conditions: Callable[[], list[PolicyCondition]],
        read: Callable[[], KernelReading] | None,
    ) -> None:
        self._metrics = metrics
        self._conditions = conditions
        self._read = read

    def describe(self) -> list[Metric]:
        return []  # so that registering does not scrape

    def collect(self) -> Iterator[Metric]:
        conditions = self._conditions()
        yield from _policy_metrics(conditions)
        restarts = CounterMetricFamily(f"{_PREFIX}_actor_restarts", "Restarts.", labels=["actor"])
        for actor, count in self._metrics.restarts.items():
            restarts.add_metric([actor], count)
        yield restarts
        yield _last_events(self._metrics.heard)
        if self._read is None:
            return
        try:
            reading = self._read()
        except OSError as error:
            _log.warning("cannot read the kernel's counters: %s", error)
            self._metrics.collect_errors.inc()
            return
        yield from _counter_metrics(conditions, reading)
        yield from _datapath_metrics(reading)


def _last_events(heard: Mapping[SourceName, float]) -> Metric:
    """A source that has nothing to hear of is up to date."""
    found = GaugeMetricFamily(
        f"{_PREFIX}_source_last_event_seconds",
        "Unix time when the part of the source that has been silent for longest was heard.",
        labels=["source"],
    )
    started = time.time() - time.monotonic()
    for source, heard_at in heard.items():
        found.add_metric([source.value], time.time() if heard_at == NOTHING_TO_HEAR else started + heard_at)
    return found


def _policy_metrics(conditions: list[PolicyCondition]) -> Iterator[Metric]:
    backends = GaugeMetricFamily(f"{_PREFIX}_backends", "Usable Pods.", labels=["policy"])
    states = GaugeMetricFamily(f"{_PREFIX}_policy_state", "1 for the policy's state.", labels=["policy", "state"])
    for condition in conditions:
        backends.add_metric([condition.key.name], condition.usable_pods)
        for state in PolicyState:
            states.add_metric([condition.key.name, state.value], float(state == condition.state))
    yield from (backends, states)


def _counter_metrics(conditions: list[PolicyCondition], reading: KernelReading) -> Iterator[Metric]:
    redirects = CounterMetricFamily(f"{_PREFIX}_redirects", "Calls redirected.", labels=["policy"])
    passes = CounterMetricFamily(f"{_PREFIX}_passes", "Matching calls left alone.", labels=["policy", "reason"])
    hits = CounterMetricFamily(f"{_PREFIX}_affinity_hits", "Redirects by affinity.", labels=["policy"])
    for condition in conditions:
        own = reading.counted.get(condition.policy_id) == condition.key.name  # else they are of who has its number
        counters = reading.counters.get(condition.policy_id, Counters()) if own else Counters()
        redirects.add_metric([condition.key.name], counters.redirects)
        hits.add_metric([condition.key.name], counters.affinity_hits)
        for reason in PassReason:
            passes.add_metric([condition.key.name, reason.label], counters.passes[reason])
    yield from (redirects, passes, hits)


def _datapath_metrics(reading: KernelReading) -> Iterator[Metric]:
    entries = GaugeMetricFamily(f"{_PREFIX}_map_entries", "Rows in the kernel map.", labels=["map"])
    capacity = GaugeMetricFamily(f"{_PREFIX}_map_capacity", "Rows that fit.", labels=["map"])
    attached = GaugeMetricFamily(f"{_PREFIX}_program_attached", "1 when attached.", labels=["hook"])
    for name, count in reading.entries.items():
        entries.add_metric([name], count)
    for name, count in reading.capacity.items():
        capacity.add_metric([name], count)
    for hook in HOOKS:
        attached.add_metric([hook], float(hook in reading.attached))
    yield from (entries, capacity, attached)
