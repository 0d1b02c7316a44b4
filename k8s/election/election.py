"""Which of the controller's processes leads: an election over a Lease, as client-go does it, on our own API access.

Whoever holds the Lease leads, and renews it. A process that sees a Lease unchanged for LEASE_DURATION_SECONDS by its
own clock takes it; the API server lets only one of several do so, by the object's resourceVersion. While the API server
is away nobody can take the Lease, so an outage only suspends the leader: it stops writing before its Lease could end,
and goes on as soon as it has renewed it, unless another process took it first. At most one installation in the cluster
leads (`k8s.election.installations`). Why it is not the client library: docs/decisions/0011-leader-election.md.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus

from k8s.api.client import Api, Timeouts
from k8s.api.errors import ApiError, Unreachable
from k8s.election.election_lease import (
    NAME,
    LeaseRecord,
    held_lease,
    leases_path,
    new_lease,
    read_record,
    released_lease,
)
from k8s.election.installations import Installations, Rival
from k8s.objects.raw import Raw

_log = logging.getLogger(__name__)

LEASE_DURATION_SECONDS = 15
"""Another process takes over when the leader has not renewed the Lease for this long."""
LEADS_SECONDS = 10
"""A leader stops writing when it could not renew the Lease for this long."""
RETRY_SECONDS = 2.0
_TIMEOUTS = Timeouts(connect=3.0, read=4.0)
"""For one request. They are short, so that there is time for a second attempt before LEADS_SECONDS are over."""
_RELEASE_TIMEOUTS = Timeouts(connect=0.3, read=0.4)


class Election:
    """`run` blocks; the rest may be called from any thread."""

    def __init__(
        self,
        *,
        api: Api,
        namespace: str,
        identity: str,
        on_lost: Callable[[str], None],
        installations: Installations,
    ) -> None:
        """`on_lost` is called once, with the reason, when another process has replaced this one as the leader."""
        self.identity = identity
        self._api = api
        self._namespace = namespace
        self._on_lost = on_lost
        self._installations = installations
        self._stopping = threading.Event()
        self._leads_until = 0.0
        """time.monotonic()"""
        self._elected = threading.Event()
        """This process has been elected at least once."""
        self._when_elected: list[Callable[[], None]] = []
        self._lost = False
        self._record = LeaseRecord(holder="")
        """The Lease as it was last read or written."""
        self._changed_at = 0.0
        """time.monotonic() at which `_record` last changed."""
        self._failure = ""
        """Why the last attempt failed; "" when it did not, or when another process was merely quicker."""
        self._retry_after = 0.0
        """Seconds for which the API server asked us to wait; 0 when it did not."""
        self._other: Rival | None = None
        """The leader of another installation."""
        self._logged = ("", False)

    def leads(self) -> bool:
        """Decided by the clock, so that it holds even if the thread that renews the Lease is stuck."""
        return time.monotonic() < self._leads_until

    @property
    def holder(self) -> str:
        """Who leads, as last read; "" for nobody. `NAMESPACE/HOLDER` for a leader of another installation."""
        if self._other is not None and not self._elected.is_set():
            return f"{self._other.namespace}/{self._other.holder}"
        return self._record.holder

    def when_elected(self, call: Callable[[], None]) -> None:
        """Calls `call` once, when this process is elected, or now if it has been elected already."""
        self._when_elected.append(call)
        if self._elected.is_set():
            call()

    def run(self) -> None:
        while not self._stopping.is_set():
            self.try_once()
            wait = max(RETRY_SECONDS * (0.9 + 0.2 * random.random()), self._retry_after)  # noqa: S311  (jitter)
            self._stopping.wait(wait)

    def stop(self) -> None:
        self._stopping.set()

    def try_once(self) -> None:
        """Takes the Lease, renews it, or learns who holds it."""
        if self._lost or self._another_installation_leads():
            return
        asked_at = time.monotonic()
        if self._take_or_renew():
            # Counted from the request: others may have seen the renewal before the answer reached us.
            self._leads_until = asked_at + LEADS_SECONDS
            self._log_change(f"this process leads, as {self.identity}")
            if not self._elected.is_set():
                self._elected.set()
                for call in self._when_elected:
                    call()
        elif self._elected.is_set() and self._record.holder != self.identity:
            self._lose(f"{self._record.holder or 'another process'} leads now")
        elif not self.leads():
            if self._elected.is_set():
                self._log_change("this process writes nothing until it can renew the Lease", self._failure)
            elif self._record.holder:
                self._log_change(f"standing by, since {self._record.holder} leads", self._failure)
            else:
                self._log_change("standing by; it is not known who leads", self._failure)

    def _take_or_renew(self) -> bool:
        """Whether this process holds the Lease now."""
        self._failure, self._retry_after = "", 0.0
        try:
            return self._try_lease()
        except ApiError as error:
            self._retry_after = error.retry_after
            if error.status != HTTPStatus.CONFLICT:
                self._failure = str(error)
        except Unreachable as error:
            self._failure = str(error)
        return False

    def _try_lease(self) -> bool:
        """Raises ApiError, Unreachable."""
        lease = self._read()
        if lease is None:
            body = new_lease(self._namespace, self.identity, _now(), LEASE_DURATION_SECONDS)
            self._observe(read_record(self._api.send("POST", leases_path(self._namespace), body, timeouts=_TIMEOUTS)))
            return True
        self._observe(read_record(lease))
        is_held = self._record.holder not in ("", self.identity)
        if is_held and time.monotonic() - self._changed_at < LEASE_DURATION_SECONDS:
            return False
        self._observe(
            read_record(self._replace(held_lease(lease, self.identity, _now(), LEASE_DURATION_SECONDS), _TIMEOUTS))
        )
        return True

    def _read(self, timeouts: Timeouts = _TIMEOUTS) -> Raw | None:
        """None when there is no Lease. Raises ApiError, Unreachable."""
        try:
            return self._api.get(f"{leases_path(self._namespace)}/{NAME}", {}, timeouts=timeouts)
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    def _replace(self, lease: Raw, timeouts: Timeouts) -> Raw:
        """Raises ApiError, with status 409 if the Lease has changed since it was read; Unreachable."""
        return self._api.send("PUT", f"{leases_path(self._namespace)}/{NAME}", lease, timeouts=timeouts)

    def _observe(self, record: LeaseRecord) -> None:
        if record != self._record:
            self._record = record
            self._changed_at = time.monotonic()

    def _another_installation_leads(self) -> bool:
        """Whether this process must not lead, because another installation does. If both have a leader, the one that
        was elected later loses; the other one logs a warning and goes on."""
        known = self._other
        self._other = first = next(iter(self._installations.rivals()), None)
        if first is None:
            return False
        if not self._elected.is_set():
            self._log_change(
                f"standing by, since the installation in namespace {first.namespace} leads ({first.holder})"
            )
            return True
        if self._installations.was_elected_before_us(first):
            self._lose(f"the installation in namespace {first.namespace} leads ({first.holder}) and was elected first")
            return True
        if known is None or known.namespace != first.namespace:
            _log.warning(
                "a controller in namespace %s leads as well; it was elected later and should stop by itself. Remove "
                "one of the two installations",
                first.namespace,
            )
        return False

    def _lose(self, why: str) -> None:
        self._lost = True
        self._leads_until = 0.0
        self._on_lost(why)

    def release(self) -> None:
        """Gives the Lease up, so that the next leader need not wait for its end.

        It takes less than two seconds, whatever the API server does. Call it when `run` has returned and nothing more
        is written.
        """
        if not self.leads():
            return
        self._leads_until = 0.0
        try:
            lease = self._read(_RELEASE_TIMEOUTS)
            if lease is not None and read_record(lease).holder == self.identity:
                self._replace(released_lease(lease, _now()), _RELEASE_TIMEOUTS)
                _log.info("gave up the Lease")
        except (ApiError, Unreachable) as error:
            _log.info(
                "cannot give up the Lease, so the next leader waits up to %s s for its end: %s",
                LEASE_DURATION_SECONDS,
                error,
            )

    def _log_change(self, what: str, failure: str = "") -> None:
        if (what, bool(failure)) == self._logged:
            return
        self._logged = what, bool(failure)
        lease = f"Lease {self._namespace}/{NAME}"
        if failure:
            _log.warning("%s (%s: %s)", what, lease, failure)
        else:
            _log.info("%s (%s)", what, lease)


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)
