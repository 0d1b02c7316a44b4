"""DecisionRecorder: writes decisions about calls to standard output, one JSON object on each line (`log.redirects`).

In: PodUpserted, PodRemoved, SourceSynced (EndpointWatcher). Out: ResyncSource (EndpointWatcher) at its start.

Like `run.py monitor`, it makes the programs record each decision. Calls to frontends cost more then, so the agent
starts this actor only if `log.redirects` asks for records.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from actors.framework.actor import AgentActor, OwnedThread
from actors.framework.messages import Message
from actors.messages.facts import PodRemoved, PodUpserted, SourceName, SourceSynced
from actors.messages.resync import ResyncSource
from actors.reporting.pod_names import PodNames
from actors.reporting.record_choice import RECORDS_PER_SECOND, RecordChoice
from bpf.cgroups.hierarchy import find_cgroup
from bpf.errors import DatapathError
from bpf.monitoring.clients import Clients
from bpf.monitoring.follow import follow
from bpf.monitoring.named_decision import rfc3339
from bpf.monitoring.printing import document

_log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_STANDARD_OUTPUT = 1


class DecisionRecorder(AgentActor):
    HANDLERS: ClassVar[Mapping[type[Message], str]] = {
        PodUpserted: "_on_pod_upserted",
        PodRemoved: "_on_pod_removed",
        SourceSynced: "_on_source_synced",
    }

    def __init__(self, *, bpffs: Path, redirects: str) -> None:
        """`bpffs` is `datapath.bpffs`, `redirects` is `log.redirects`: `passes` or `all`."""
        super().__init__()
        self._bpffs = bpffs
        self._redirects = redirects
        self._choice = RecordChoice(redirects)
        self._stopping = threading.Event()
        self._faults: dict[str, str] = {}
        """What fails -> how, as it was last logged."""
        self._pods = PodNames()

    def started(self) -> None:
        _log.info(
            "log.redirects is %s: decisions about calls go to standard output, %d a second at most",
            self._redirects,
            RECORDS_PER_SECOND,
        )
        self.own(OwnedThread(self, "decisions", self._record, self._stopping.set))
        self.send("EndpointWatcher", ResyncSource())

    def _on_pod_upserted(self, message: PodUpserted) -> None:
        self._pods.upserted(message.pod, message.listing)

    def _on_pod_removed(self, message: PodRemoved) -> None:
        self._pods.removed(message.key)

    def _on_source_synced(self, message: SourceSynced) -> None:
        if message.source == SourceName.ENDPOINTS:
            self._pods.synced(message.listing)

    # --- the recording thread -----------------------------------------------------------------------------------------

    def _record(self) -> None:
        clients = Clients(find_cgroup("auto"), lambda: self._pods.by_uid)
        while not self._stopping.is_set():
            try:
                self._follow(clients)
            except (DatapathError, OSError) as error:
                self._report("read the decisions about calls", str(error))
                self._stopping.wait(_RETRY_SECONDS)

    def _follow(self, clients: Clients) -> None:
        for each in follow(
            self._bpffs, clients, self._wait, lambda decision: self._choice.takes(decision, time.monotonic())
        ):
            self._report("read the decisions about calls", "")
            if isinstance(each, int):
                self._choice.add_lost(each)
            elif not self._write(document(each)):
                self._choice.add_lost(1)

    def _wait(self, seconds: float) -> bool:
        """Called between two readings, even while there are no decisions."""
        lost = self._choice.take_lost(time.monotonic())
        if lost and not self._write({"time": rfc3339(time.time()), "lost": lost}):
            self._choice.add_lost(lost)
        return self._stopping.wait(seconds)

    def _write(self, record: Mapping[str, object]) -> bool:
        """Returns whether the record was written.

        It writes to the descriptor, since sys.stdout has a lock. If no process reads the output, the write blocks. With
        sys.stdout this thread would then hold the lock, and the interpreter would wait for it at exit.
        """
        try:
            os.write(_STANDARD_OUTPUT, json.dumps(record).encode() + b"\n")
        except OSError as error:
            self._report("write records to standard output", str(error))
            return False
        self._report("write records to standard output", "")
        return True

    def _report(self, what: str, fault: str) -> None:
        """Logs a fault once. `fault` is "" when there is none."""
        if fault and self._faults.get(what) != fault:
            _log.warning("cannot %s: %s; records are lost until this works, and the agent keeps trying", what, fault)
        elif not fault and self._faults.get(what):
            _log.info("can %s again", what)
        self._faults[what] = fault
