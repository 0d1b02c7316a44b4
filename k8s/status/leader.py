"""Which of the controller's processes leads: the official library's election over a Lease, in a loop of our own.

The library's own loop can't be stopped, gives up for good after ten seconds without the API server, and its lock lets
errors of the connection through. Here an outage only suspends: nobody can take the Lease then, and who held it goes on
holding it unless another has taken it first. Other installations in the cluster count, too
(`k8s.status.installations`).
"""

from __future__ import annotations

import json
import logging
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import urllib3
from kubernetes.client import ApiException, CoordinationV1Api
from kubernetes.config import ConfigException, list_kube_config_contexts
from kubernetes.leaderelection.electionconfig import Config
from kubernetes.leaderelection.leaderelection import LeaderElection
from kubernetes.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

from k8s.api.client import Api, api_error
from k8s.status.installations import Installations, Rival

_log = logging.getLogger(__name__)

NAME = "balancing-controller"
DEFAULT_NAMESPACE = "elf"
LEASE_SECONDS = 15
"""Without a sign of the leader for so long, another process takes over."""
LEADS_SECONDS = 10
"""Without an answer of the API server for so long, the leader no longer takes itself for one."""
RETRY_SECONDS = 2.0
_LOOK_SECONDS = (1.0, 1.5)
"""For a look at other installations, which must not cost the leader its Lease."""
_REQUEST_SECONDS = (3.0, 4.0)
"""To connect, to be answered. Together shorter than what is left of the Lease when we cease to lead."""
_RELEASE_SECONDS = (0.3, 0.4)
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def own_namespace(kubeconfig: str) -> str:
    """POD_NAMESPACE, else the service account's, else that of the kubeconfig's context, else `elf`."""
    named = os.environ.get("POD_NAMESPACE", "")
    if named:
        return named
    try:
        return _NAMESPACE_FILE.read_text(encoding="utf-8").strip() or DEFAULT_NAMESPACE
    except OSError:
        pass
    try:
        _, active = list_kube_config_contexts(config_file=kubeconfig or None)  # type: ignore[no-untyped-call]
        return str(active["context"].get("namespace") or DEFAULT_NAMESPACE)
    except (ConfigException, OSError, KeyError, TypeError, AttributeError):
        return DEFAULT_NAMESPACE


def new_identity() -> str:
    return f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"


class Leases:
    """What the lock asks of the official client, with a time-out, and every failure an ApiException."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.timeout = _REQUEST_SECONDS
        self.failure = ""
        """Why the last call failed, where that is no part of the game."""
        self.retry_after = 0.0
        """Seconds for which the API server wants to be left alone, as it said last; 0 when it wants nothing."""

    def read_namespaced_lease(self, name: str, namespace: str) -> Any:
        return self._call("read_namespaced_lease", name, namespace)

    def create_namespaced_lease(self, namespace: str, body: Any) -> Any:
        return self._call("create_namespaced_lease", namespace, body)

    def replace_namespaced_lease(self, *, name: str, namespace: str, body: Any) -> Any:
        return self._call("replace_namespaced_lease", name, namespace, body)

    def of_all_namespaces(self) -> Any:
        """The controllers' Leases. Raises ApiException."""
        api = CoordinationV1Api(self._api.client)
        try:
            return api.list_lease_for_all_namespaces(
                field_selector=f"metadata.name={NAME}", _request_timeout=_LOOK_SECONDS
            ).items
        except (urllib3.exceptions.HTTPError, OSError, ValueError, ConfigException) as error:
            raise ApiException(status=0, reason=" ".join(str(error).split())[:300]) from error

    def _call(self, method: str, *arguments: Any) -> Any:
        self.retry_after = 0.0
        client = self._api.client
        try:
            answer = getattr(CoordinationV1Api(client), method)(*arguments, _request_timeout=self.timeout)
        except ApiException as error:
            if error.status == 401:
                self._api.reconnect(client)
            absent = error.status == 404 and method == "read_namespaced_lease"
            overtaken = error.status == 409
            self.failure = "" if absent or overtaken else _told(error)
            wish = (error.headers or {}).get("Retry-After")
            self.retry_after = api_error(error.status, {}, retry_after=wish).retry_after
            raise
        except (urllib3.exceptions.HTTPError, OSError, ValueError, ConfigException) as error:
            self.failure = " ".join(str(error).split())[:300]
            raise ApiException(status=0, reason=self.failure) from error
        self.failure = ""
        return answer


def _told(error: ApiException) -> str:
    """By the API server, which says it best: `leases.coordination.k8s.io "x" is forbidden: ...`."""
    try:
        message = json.loads(error.body or "")["message"]
    except (ValueError, TypeError, KeyError):
        message = error.reason
    return f"{error.status} {message}"[:500]


class _Lock(LeaseLock):
    def __init__(self, leases: Leases, namespace: str, identity: str) -> None:
        # Not the base class's: it would make a client of its own.
        self.api_instance: Any = leases
        self.name = NAME
        self.namespace = namespace
        self.identity = identity
        self.lease_reference = None


class Leadership:
    """`run` blocks; the rest may be called from any thread."""

    def __init__(
        self,
        *,
        leases: Leases,
        namespace: str,
        identity: str,
        on_lost: Callable[[str], None],
        installations: Installations,
    ) -> None:
        """`on_lost` is called, once, when another process has taken over from this one."""
        self.identity = identity
        self._leases = leases
        self._lock: Any = _Lock(leases, namespace, identity)
        self._election: Any = LeaderElection(  # type: ignore[no-untyped-call]
            Config(  # type: ignore[no-untyped-call]
                self._lock,
                lease_duration=LEASE_SECONDS,
                renew_deadline=LEADS_SECONDS,
                retry_period=RETRY_SECONDS,
                onstarted_leading=lambda: None,
                onstopped_leading=lambda: None,
            )
        )
        self._on_lost = on_lost
        self._installations = installations
        self._stopping = threading.Event()
        self._leads_until = 0.0
        self._elected = threading.Event()
        """Has been elected once."""
        self._when_elected: list[Callable[[], None]] = []
        self._lost = False
        self._said = ("", False)
        self._other: Rival | None = None
        """Another installation that leads."""

    def leads(self) -> bool:
        """Told by the clock: true whatever the thread that renews is stuck in."""
        return time.monotonic() < self._leads_until

    @property
    def holder(self) -> str:
        """As last read; "" for nobody. With its namespace when it is another installation's."""
        if self._other is not None and not self._elected.is_set():
            return f"{self._other.namespace}/{self._other.holder}"
        record = self._election.observed_record
        return str(record.holder_identity or "") if record else ""

    def when_elected(self, call: Callable[[], None]) -> None:
        """Once; at once when that is so already."""
        self._when_elected.append(call)
        if self._elected.is_set():
            call()

    def run(self) -> None:
        while not self._stopping.is_set():
            self.try_once()
            wait = max(RETRY_SECONDS * (0.9 + 0.2 * random.random()), self._leases.retry_after)  # noqa: S311  (jitter)
            self._stopping.wait(wait)

    def try_once(self) -> None:
        """Takes the Lease, or renews it, or learns who has it."""
        if self._lost or self._another_installation_leads():
            return
        asked_at = time.monotonic()
        if self._election.try_acquire_or_renew():
            self._leads_until = asked_at + LEADS_SECONDS
            self._say(f"{self.identity} leads, that is this process")
            if not self._elected.is_set():
                self._elected.set()
                for call in self._when_elected:
                    call()
        elif self._elected.is_set() and self.holder != self.identity:
            self._lose(f"{self.holder or 'another process'} leads now")
        elif not self.leads():
            if self._elected.is_set():
                self._say("nothing is written until the Lease can be renewed", self._leases.failure)
            else:
                held_by = f"{self.holder} leads" if self.holder else "nobody is known to lead"
                self._say(f"standing by: {held_by}", self._leases.failure)

    def _another_installation_leads(self) -> bool:
        """Of two that lead, one goes on: it says so, and the other has an end."""
        known = self._other
        self._other = first = next(iter(self._installations.rivals()), None)
        if first is None:
            return False
        if not self._elected.is_set():
            self._say(f"standing by: the installation in namespace {first.namespace} leads, by {first.holder}")
            return True
        if self._installations.comes_before_us(first):
            self._lose(f"the installation in namespace {first.namespace} leads, by {first.holder}, which came first")
            return True
        if known is None or known.namespace != first.namespace:
            _log.warning(
                "a controller in namespace %s leads as well, and came later: it should end; remove one of the "
                "two installations",
                first.namespace,
            )
        return False

    def _lose(self, why: str) -> None:
        self._lost = True
        self._leads_until = 0.0
        self._on_lost(why)

    def stop(self) -> None:
        self._stopping.set()

    def release(self) -> None:
        """Gives the Lease up, so that the next leader need not wait for its end. Quick, whatever the API server does;
        call it when `run` has returned and nothing more is written."""
        if not self.leads():
            return
        self._leads_until = 0.0
        self._leases.timeout = _RELEASE_SECONDS
        found, record = self._lock.get(self._lock.name, self._lock.namespace)
        if found and record.holder_identity == self.identity:
            given_up = LeaderElectionRecord(  # type: ignore[no-untyped-call]
                "", "1", record.acquire_time, str(datetime.now(UTC))
            )
            if self._lock.update(self._lock.name, self._lock.namespace, given_up):
                _log.info("the Lease is given up")

    def _say(self, what: str, trouble: str = "") -> None:
        if (what, bool(trouble)) == self._said:
            return
        self._said = what, bool(trouble)
        lease = f"Lease {self._lock.namespace}/{self._lock.name}"
        if trouble:
            _log.warning("%s (%s: %s)", what, lease, trouble)
        else:
            _log.info("%s (%s)", what, lease)
