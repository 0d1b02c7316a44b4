"""The metrics that MetricsExporter sets as messages arrive (docs/metrics.md); names and labels are a contract.

What is read or computed at each scrape is in `actors.reporting.scraped_metrics`.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from actors.messages.checks import CheckCount
from actors.messages.facts import SourceName
from actors.messages.reports import PolicyCondition
from actors.reporting.kernel_reading import KernelReading
from actors.reporting.scraped_metrics import PREFIX, ScrapedMetrics
from config.domain.ids import PolicyKey
from config.version import VERSION

_SUCCESS, _FAILURE = "success", "failure"
"""Label `result` of health_checks."""
_APPLY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class AgentMetrics:
    """The registry, and the metrics in it that MetricsExporter sets."""

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
        # Otherwise each counter would have a second series, `..._created`, which is not part of the contract.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        # Registered first, so that a scrape that cannot read the kernel is counted in its own answer.
        self.registry.register(
            ScrapedMetrics(
                conditions=conditions,
                read=read,
                restarts=lambda: self.restarts,
                heard_at=lambda: self.heard_at,
                on_read_error=self._count_read_error,
            )
        )
        info = Gauge(
            "build_info",
            "Always 1. The labels are the release and the build of the kernel programs.",
            ["version", "build"],
            namespace=PREFIX,
            registry=self.registry,
        )
        info.labels(VERSION, build).set(1)
        self.policy_conflicts = Gauge(
            "policy_conflicts",
            "Policies that lost a conflict.",
            namespace=PREFIX,
            registry=self.registry,
        )
        self.apply_seconds = Histogram(
            "apply_seconds",
            "From the receipt of an event to the kernel write that it caused.",
            namespace=PREFIX,
            buckets=_APPLY_BUCKETS,
            registry=self.registry,
        )
        self.source_relists = Counter(
            "source_relists",
            "Listings of a source.",
            ["source", "reason"],
            namespace=PREFIX,
            registry=self.registry,
        )
        self.mailbox_size = Gauge(
            "actor_mailbox_size", "Messages that are waiting.", ["actor"], namespace=PREFIX, registry=self.registry
        )
        self.collect_errors = Counter(
            "collect_errors", "Scrapes that could not read the kernel.", namespace=PREFIX, registry=self.registry
        )
        self.health_checks = Counter(
            "health_checks",
            "Health checks of backend Pods that ended.",
            ["policy", "result"],
            namespace=PREFIX,
            registry=self.registry,
        )
        self.writes: Counter | None = None
        if read is None:
            self.writes = Counter(
                "api_writes",
                "Writes to the API server.",
                ["what", "result"],
                namespace=PREFIX,
                registry=self.registry,
            )
        self.restarts: dict[str, int] = {}
        """Actor -> number of restarts. The dict is replaced and never changed, since a scrape reads it in another
        thread."""
        self.heard_at: dict[SourceName, float] = {}
        """Source -> the newest `k8s.sources.source.Heard.heard_at`. The dict is replaced as well."""

    def count_checks(self, count: CheckCount) -> None:
        for result, ended in ((_SUCCESS, count.successes), (_FAILURE, count.failures)):
            self.health_checks.labels(count.policy.name, result).inc(ended)

    def forget_policy(self, key: PolicyKey) -> None:
        for result in (_SUCCESS, _FAILURE):
            self.health_checks.remove(key.name, result)

    def _count_read_error(self) -> None:
        self.collect_errors.inc()
