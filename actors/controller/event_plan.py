"""Which Events are to be written, and when. Pure; the clock is passed in.

A policy may go back and forth between two states all the time. Its Events must not fill the namespace then, so each
policy has a limited rate of Events, and a change that exceeds it waits. Only the newest change of a policy waits,
so that its last Event agrees with its state.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from actors.controller.outage_pause import OutagePause
from actors.framework.rates import TokenBucket
from config.domain.ids import PolicyKey
from k8s.status.write_requests import EventWrite, WriteAnswer, WriteResult

EVENTS_BURST = 10.0
EVENTS_PER_SECOND = 1 / 60
"""For each policy."""
_MAX_EVENTS = 1000


@dataclass(slots=True)
class _Reported:
    """The Events of one object."""

    uid: str
    bucket: TokenBucket = field(default_factory=lambda: TokenBucket(EVENTS_PER_SECOND, EVENTS_BURST))
    reason: str = ""
    """Reason of the newest Event; "" when it is not known."""


class EventPlan:
    def __init__(self) -> None:
        self._queue: deque[EventWrite] = deque()
        """Events to write, oldest first; at most _MAX_EVENTS."""
        self._waiting: dict[PolicyKey, EventWrite] = {}
        """The newest change of each policy that had too many Events lately, or found the queue full."""
        self._reported: dict[PolicyKey, _Reported] = {}
        self._pause = OutagePause()

    def reason_changed(self, event: EventWrite, now: float) -> None:
        """The reason in a policy's status is another one now; `event` reports it."""
        reported = self._reported.get(event.key)
        if reported is None or reported.uid != event.uid:
            self._reported[event.key] = _Reported(event.uid)
        self._waiting[event.key] = event
        self._queue_waiting(event.key, now)

    def forget(self, key: PolicyKey) -> None:
        """The object no longer exists. Another one with the same name begins with a full rate."""
        self._waiting.pop(key, None)
        self._reported.pop(key, None)

    def is_due(self, now: float) -> bool:
        """Whether `next` has an Event to write now."""
        if now < self._pause.until:
            return False
        for key in list(self._waiting):
            self._queue_waiting(key, now)
        return bool(self._queue)

    def next(self) -> EventWrite:
        return self._queue.popleft()

    def ended(self, event: EventWrite, answer: WriteAnswer, now: float, jitter: float) -> None:
        self._pause.note(answer, now, jitter)
        reported = self._reported.get(event.key)
        if answer.result == WriteResult.UNAVAILABLE:
            self._queue.appendleft(event)
        elif answer.result == WriteResult.REFUSED and reported is not None:
            reported.reason = ""

    def _queue_waiting(self, key: PolicyKey, now: float) -> None:
        reported = self._reported[key]
        if self._waiting[key].reason == reported.reason:
            del self._waiting[key]  # the policy is back in the state that its newest Event reports
        elif len(self._queue) < _MAX_EVENTS and reported.bucket.take(now):
            event = self._waiting.pop(key)
            reported.reason = event.reason
            self._queue.append(event)
