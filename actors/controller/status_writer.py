"""StatusWriter: writes the status of LocalRedirectPolicies, and Events about them, to the API server.

In: ApplyVerdicts (ConflictResolver), PolicyStatusSeen and PolicyStatusGone (PolicyWatcher), TickElapsed (own clock),
WriteEnded (own writing thread). Out: ResyncDesiredState (ConflictResolver) and ResyncSource (PolicyWatcher), at start;
WriteEnded (MetricsExporter).

A thread does one write at a time. `actors.controller.write_plan` decides what is written, and when. Nothing is
written while another process leads, or may lead.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import ClassVar

from actors.controller.write_plan import WritePlan
from actors.framework.actor import AgentActor, OwnedThread, clock
from actors.framework.messages import Message, TickElapsed
from actors.messages.resync import ResyncDesiredState, ResyncSource
from actors.messages.verdicts import ApplyVerdicts, PolicyStatusGone, PolicyStatusSeen, WriteEnded
from config.domain.ids import PolicyKey
from k8s.status.write_requests import EventWrite, Write, WriteAnswer, WriteResult

_log = logging.getLogger(__name__)

TICK_SECONDS = 0.2


class StatusWriter(AgentActor):
    HANDLERS: ClassVar[Mapping[type[Message], str]] = {
        ApplyVerdicts: "_on_apply_verdicts",
        PolicyStatusSeen: "_on_policy_status_seen",
        PolicyStatusGone: "_on_policy_status_gone",
        TickElapsed: "_on_tick_elapsed",
        WriteEnded: "_on_write_ended",
    }

    def __init__(self, *, write: Callable[[Write], WriteAnswer], leads: Callable[[], bool]) -> None:
        """`write` blocks until the API server answers, and `leads` says whether this process may write now."""
        super().__init__()
        self._write = write
        self._leads = leads
        self._plan = WritePlan()
        self._writing: Write | None = None
        self._writes: SimpleQueue[Write | None] = SimpleQueue()
        """Writes for the thread; None ends it."""
        self._logged_refusals: dict[PolicyKey, str] = {}
        self._logged_outage = ""
        """Why the API server takes no writes; "" while it takes them."""

    def started(self) -> None:
        self.own(OwnedThread(self, "status-writes", self._run, lambda: self._writes.put(None)))
        self.own(clock(self, TICK_SECONDS))
        # If this is a restart, the statuses of the policies were sent to the failed writer. Ask for them again.
        self.send("PolicyWatcher", ResyncSource())
        self.send("ConflictResolver", ResyncDesiredState())

    def _run(self) -> None:
        """Runs in the writing thread."""
        while (write := self._writes.get()) is not None:
            answer = self._write(write)
            if not self.tell_self(WriteEnded(write=write, answer=answer)):
                return

    def _on_apply_verdicts(self, message: ApplyVerdicts) -> None:
        self._plan.apply(message)
        self._write_next()

    def _on_policy_status_seen(self, message: PolicyStatusSeen) -> None:
        self._plan.status_seen(message)
        self._write_next()

    def _on_policy_status_gone(self, message: PolicyStatusGone) -> None:
        self._plan.status_gone(message.key)
        self._logged_refusals.pop(message.key, None)

    def _on_tick_elapsed(self, _message: TickElapsed) -> None:
        self._write_next()

    def _on_write_ended(self, message: WriteEnded) -> None:
        self._writing = None
        self._log_answer(message.write, message.answer)
        self._plan.ended(message.write, message.answer, time.monotonic(), random.random())  # noqa: S311  (jitter)
        self.send("MetricsExporter", message)
        self._write_next()

    def _write_next(self) -> None:
        if self._writing is not None or not self._leads():
            return
        self._writing = self._plan.next(time.monotonic(), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        if self._writing is not None:
            self._writes.put(self._writing)

    def _log_answer(self, write: Write, answer: WriteAnswer) -> None:
        what = "an Event for" if isinstance(write, EventWrite) else "the status of"
        if answer.result == WriteResult.UNAVAILABLE:
            if not self._logged_outage:
                _log.warning("cannot write to the API server: %s; retrying with back-off", answer.error)
            self._logged_outage = answer.error
            return
        if self._logged_outage:
            self._logged_outage = ""
            _log.info("the API server accepts writes again")
        if answer.result == WriteResult.WRITTEN:
            self._logged_refusals.pop(write.key, None)
            _log.debug("wrote %s policy %s", what, write.key.name)
        elif answer.gone:
            self._logged_refusals.pop(write.key, None)
            _log.debug("policy %s no longer exists; nothing was written", write.key.name)
        elif self._logged_refusals.get(write.key) != answer.error:
            self._logged_refusals[write.key] = answer.error
            _log.warning("the API server refused %s policy %s: %s", what, write.key.name, answer.error)
