"""Other installations of the controller in this cluster. Policies belong to the whole cluster, so only one may write.

Each installation elects its leader by a Lease in its own namespace, and has no right to write a Lease elsewhere. So a
controller also lists the Leases of its name in all namespaces, a right that exposes nothing:
- While another installation has a leader, a process that does not lead does not try to, and logs which one leads.
- If two installations have a leader, because both were elected at the same moment, the later one stops and stands by.
Without that right the controller logs a warning, and leads in its own namespace as if it were the only installation.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import datetime

from k8s.api.client import Api, Timeouts
from k8s.api.errors import REFUSALS, ApiError, Unreachable
from k8s.election.election_lease import LEASES_PATH, NAME, read_record
from k8s.objects.raw import Raw

_log = logging.getLogger(__name__)

_TIMEOUTS = Timeouts(connect=1.0, read=1.5)
"""They are short, so that a leader that waits for this answer does not lose its own Lease."""
_ABANDONED_SECONDS = 300.0
"""A Lease whose renewTime is older than this by our clock was abandoned: clocks do not differ by that much."""


@dataclass(frozen=True, slots=True)
class Rival:
    """The leader of an installation."""

    namespace: str
    holder: str
    acquired_at: datetime
    renewed_at: datetime

    @property
    def seniority(self) -> tuple[datetime, str]:
        """Sorts by who was elected first, so that all processes decide alike."""
        return self.acquired_at, self.namespace


class Installations:
    """For one thread."""

    def __init__(self, api: Api, namespace: str, lease_duration_seconds: float) -> None:
        self._api = api
        self._namespace = namespace
        self._lease_duration_seconds = lease_duration_seconds
        self._seen: dict[str, tuple[Rival, float]] = {}
        """Namespace -> its leader as seen last, and time.monotonic() at which that last changed. So the clocks of other
        machines are not compared with ours."""
        self._own: Rival | None = None
        self._has_warned = False

    def rivals(self) -> tuple[Rival, ...]:
        """The leaders of other installations in the order of their election; none if the API server does not answer."""
        try:
            answer = self._api.get(LEASES_PATH, {"fieldSelector": f"metadata.name={NAME}"}, timeouts=_TIMEOUTS)
        except ApiError as error:
            if error.status in REFUSALS:
                self._warn(error)
            return ()
        except Unreachable:
            return ()
        now = time.monotonic()
        found = {rival.namespace: rival for each in answer.get("items") or () if (rival := _leader(each)) is not None}
        self._own = found.pop(self._namespace, None)
        self._seen = {
            namespace: self._seen[namespace] if self._is_known(rival) else (rival, now)
            for namespace, rival in found.items()
        }
        live = [rival for rival, since in self._seen.values() if now - since < self._lease_duration_seconds]
        return tuple(sorted(live, key=lambda rival: rival.seniority))

    def was_elected_before_us(self, rival: Rival) -> bool:
        """Of two installations that have a leader, the one whose leader was elected first goes on."""
        return self._own is not None and rival.seniority < self._own.seniority

    def _is_known(self, rival: Rival) -> bool:
        return rival.namespace in self._seen and self._seen[rival.namespace][0] == rival

    def _warn(self, error: ApiError) -> None:
        if not self._has_warned:
            self._has_warned = True
            _log.warning(
                "the right to list leases.coordination.k8s.io named %s in all namespaces is missing, so this process "
                "would not notice a second installation of the controller in this cluster: %s",
                NAME,
                error,
            )


def _leader(lease: Raw) -> Rival | None:
    """None for a Lease that nobody holds, or that was abandoned."""
    record = read_record(lease)
    if not record.holder or record.renewed_at is None:
        return None
    if time.time() - record.renewed_at.timestamp() > _ABANDONED_SECONDS:
        return None
    acquired_at = record.acquired_at or record.renewed_at
    return Rival(lease["metadata"]["namespace"], record.holder, acquired_at, record.renewed_at)
