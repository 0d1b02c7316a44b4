"""Other installations of the controller in this cluster: policies belong to the cluster, so one of them may write.

Each installation elects its leader by a Lease in its own namespace, and can't hold one in another's. So a controller
also looks at the Leases of that name in all namespaces, a right to read that gives nothing away:
- one that does not lead does not run for it while another installation has a leader; it says which;
- of two that lead (they began at the same time), the one that was elected later ends, and stands by from then on.
Where that right is missing the controller says so, and leads in its namespace as if it were alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kubernetes.client import ApiException

_log = logging.getLogger(__name__)

_STALE_SECONDS = 300.0
"""A Lease that was renewed longer ago, by our clock, was left behind; clocks do not differ by that much."""


@dataclass(frozen=True, slots=True)
class Rival:
    """A leader of another installation, or of this one."""

    namespace: str
    holder: str
    acquired: str
    """RFC 3339 in UTC, so that strings sort by time."""
    renewed: str


class Installations:
    """`list_leases` gives the Leases of the controller's name in all namespaces; for one thread."""

    def __init__(self, list_leases: Callable[[], Iterable[Any]], namespace: str, lease_seconds: float) -> None:
        self._list = list_leases
        self._namespace = namespace
        self._lease_seconds = lease_seconds
        self._seen: dict[str, tuple[Rival, float]] = {}
        """Namespace -> its leader as it was last, and when that was new; clocks of other machines are not compared."""
        self._complaint = ""
        self._own = ""

    def rivals(self) -> tuple[Rival, ...]:
        """Those of other installations that lead now, as far as is known; first the one that was elected first."""
        try:
            leases = list(self._list())
        except ApiException as error:
            if error.status in (401, 403) and not self._complaint:
                self._complaint = str(error.reason)
                _log.warning(
                    "the right to list leases.coordination.k8s.io named balancing-controller in all namespaces is "
                    "missing, so a second installation of the controller in this cluster would not be noticed: %s",
                    error.reason,
                )
            return ()
        now = time.monotonic()
        found = {rival.namespace: rival for each in leases if (rival := _read(each)) is not None}
        own = found.pop(self._namespace, None)
        self._own = own.acquired if own else ""
        self._seen = {
            namespace: self._seen[namespace] if self._is_known(rival) else (rival, now)
            for namespace, rival in found.items()
        }
        live = [rival for rival, since in self._seen.values() if now - since < self._lease_seconds]
        return tuple(sorted(live, key=lambda rival: (rival.acquired, rival.namespace)))

    def comes_before_us(self, rival: Rival) -> bool:
        """Of two that lead. Both decide alike."""
        return (rival.acquired, rival.namespace) < (self._own, self._namespace)

    def _is_known(self, rival: Rival) -> bool:
        return rival.namespace in self._seen and self._seen[rival.namespace][0] == rival


def _read(lease: Any) -> Rival | None:
    """None for a Lease that nobody holds, or that was left behind."""
    spec = lease.spec
    if spec is None or not spec.holder_identity or spec.renew_time is None:
        return None
    if time.time() - _in_utc(spec.renew_time).timestamp() > _STALE_SECONDS:
        return None
    acquired = _in_utc(spec.acquire_time or spec.renew_time)
    return Rival(
        namespace=lease.metadata.namespace,
        holder=spec.holder_identity,
        acquired=acquired.isoformat(timespec="microseconds"),
        renewed=_in_utc(spec.renew_time).isoformat(timespec="microseconds"),
    )


def _in_utc(when: datetime) -> datetime:
    return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
