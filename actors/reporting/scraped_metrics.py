"""The metrics that are read or computed at each scrape: policies, the kernel's counters and maps (docs/metrics.md)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from actors.messages.facts import SourceName
from actors.messages.reports import PolicyCondition, PolicyState
from actors.reporting.closer_state import CloserState
from actors.reporting.kernel_reading import DatapathFault, KernelReading
from actors.reporting.stale_closed import StaleClosed
from bpf.build import HOOKS
from bpf.maps.rows import Counters, PassReason
from k8s.sources.source import NOTHING_TO_HEAR

_log = logging.getLogger(__name__)

PREFIX = "localredirect"


class ScrapedMetrics(Collector):
    """Each argument is called at each scrape, in the HTTP server's thread. `read` may raise OSError."""

    def __init__(
        self,
        *,
        conditions: Callable[[], list[PolicyCondition]],
        read: Callable[[], KernelReading] | None,
        restarts: Callable[[], Mapping[str, int]],
        heard_at: Callable[[], Mapping[SourceName, float]],
        on_read_error: Callable[[], None],
    ) -> None:
        self._conditions = conditions
        self._read = read
        self._restarts = restarts
        self._heard_at = heard_at
        self._on_read_error = on_read_error
        self._stale_closed = StaleClosed()

    def describe(self) -> list[Metric]:
        return []  # otherwise the registry would scrape when this is registered

    def collect(self) -> Iterator[Metric]:
        conditions = self._conditions()
        yield from _policy_metrics(conditions)
        restarts = CounterMetricFamily(f"{PREFIX}_actor_restarts", "Restarts of the actor.", labels=["actor"])
        for actor, count in self._restarts().items():
            restarts.add_metric([actor], count)
        yield restarts
        yield _last_events(self._heard_at())
        if self._read is None:
            return
        yield _unhealthy_backends(conditions)  # only an agent knows them
        try:
            reading = self._read()
        except OSError as error:
            _log.warning("cannot read the kernel's counters: %s", error)
            self._on_read_error()
            return
        yield from _counter_metrics(conditions, reading)
        yield self._closed_sockets(conditions, reading)
        yield from _datapath_metrics(reading)

    def _closed_sockets(self, conditions: list[PolicyCondition], reading: KernelReading) -> Metric:
        closed = CounterMetricFamily(
            f"{PREFIX}_stale_sockets_closed", "Sockets closed because their backend is out of use.", labels=["policy"]
        )
        for policy, number in self._stale_closed.by_policy(conditions, reading.stale_closed).items():
            closed.add_metric([policy], number)
        return closed


def _last_events(heard_at: Mapping[SourceName, float]) -> Metric:
    """A source that has nothing to hear about counts as heard now."""
    found = GaugeMetricFamily(
        f"{PREFIX}_source_last_event_seconds",
        "Unix time at which the part of the source that has been silent for longest was heard.",
        labels=["source"],
    )
    epoch = time.time() - time.monotonic()
    for source, at in heard_at.items():
        found.add_metric([source.value], time.time() if at == NOTHING_TO_HEAR else epoch + at)
    return found


def _policy_metrics(conditions: list[PolicyCondition]) -> Iterator[Metric]:
    backends = GaugeMetricFamily(f"{PREFIX}_backends", "Pods that are usable as backends.", labels=["policy"])
    states = GaugeMetricFamily(
        f"{PREFIX}_policy_state", "1 for the policy's present state.", labels=["policy", "state"]
    )
    for condition in conditions:
        backends.add_metric([condition.key.name], condition.usable_pods)
        for state in PolicyState:
            states.add_metric([condition.key.name, state.value], float(state == condition.state))
    yield from (backends, states)


def _unhealthy_backends(conditions: list[PolicyCondition]) -> Metric:
    found = GaugeMetricFamily(
        f"{PREFIX}_unhealthy_backends",
        "Pods that are Ready and out of use: a container of theirs ended, or their health check failed.",
        labels=["policy"],
    )
    for condition in conditions:
        found.add_metric([condition.key.name], condition.unhealthy_pods)
    return found


def _counter_metrics(conditions: list[PolicyCondition], reading: KernelReading) -> Iterator[Metric]:
    redirects = CounterMetricFamily(f"{PREFIX}_redirects", "Calls redirected.", labels=["policy"])
    passes = CounterMetricFamily(
        f"{PREFIX}_passes", "Matching calls that were not redirected.", labels=["policy", "reason"]
    )
    hits = CounterMetricFamily(f"{PREFIX}_affinity_hits", "Redirects by session affinity.", labels=["policy"])
    for condition in conditions:
        # A policy that lost a conflict over its id must not show the counters of the policy that has the id.
        is_own = reading.counted.get(condition.policy_id) == condition.key.name
        counters = reading.counters.get(condition.policy_id, Counters()) if is_own else Counters()
        redirects.add_metric([condition.key.name], counters.redirects)
        hits.add_metric([condition.key.name], counters.affinity_hits)
        for reason in PassReason:
            passes.add_metric([condition.key.name, reason.label], counters.passes[reason])
    yield from (redirects, passes, hits)


def _datapath_metrics(reading: KernelReading) -> Iterator[Metric]:
    entries = GaugeMetricFamily(f"{PREFIX}_map_entries", "Rows in use in the kernel map.", labels=["map"])
    capacity = GaugeMetricFamily(f"{PREFIX}_map_capacity", "Rows that the kernel map has room for.", labels=["map"])
    attached = GaugeMetricFamily(f"{PREFIX}_program_attached", "1 while the program is attached.", labels=["hook"])
    closer = GaugeMetricFamily(f"{PREFIX}_closer_state", "1 for the closer's present state.", labels=["state"])
    faults = GaugeMetricFamily(
        f"{PREFIX}_datapath_fault", "1 while this keeps calls from being redirected.", labels=["fault"]
    )
    for name, count in reading.entries.items():
        entries.add_metric([name], count)
    for name, count in reading.capacity.items():
        capacity.add_metric([name], count)
    for hook in HOOKS:
        attached.add_metric([hook], float(hook in reading.attached))
    for fault in DatapathFault:
        faults.add_metric([fault.value], float(fault in reading.faults))
    for state in CloserState:
        closer.add_metric([state.value], float(state == reading.closer))
    yield from (entries, capacity, attached, faults, closer)
