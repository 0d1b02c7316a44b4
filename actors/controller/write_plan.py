"""What is to be written to the API, and when: never what is there already, never hot. Pure; the clock is passed in.

A write of a policy's status reaches every agent, for all of them watch policies. So each policy waits a second between
two writes, and where only counts have changed, longer in a big cluster; all together keep to a rate.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from actors.framework.rates import TokenBucket
from actors.messages.verdicts import Acceptance, ApplyVerdicts, PolicyStatusSeen, PolicyVerdict
from config.backoff import Backoff
from config.domain.ids import PolicyKey
from k8s.objects.model import PolicyStatus
from k8s.status.writes import EventWrite, StatusWrite, Write, WriteAnswer, WriteResult

WRITES_PER_SECOND = 20.0
BURST = 20.0
POLICY_SECONDS = 1.0
"""Between two writes to one policy."""
COUNT_SECONDS_A_NODE = 0.01
"""As above, where nothing but counts has changed: a second up to 100 nodes, 10 s with 1,000."""
EVENTS_BURST = 10.0
EVENTS_PER_SECOND = 1 / 60
"""Of one policy."""
_MOST_EVENTS = 1000
_OUTAGE_BACKOFF = Backoff(first=0.5, longest=30.0)
"""While the API server takes no writes of a kind."""
_REFUSAL_BACKOFF = Backoff(first=0.5, longest=300.0)
"""While it refuses the status of one policy."""


@dataclass(slots=True)
class _Pause:
    """Of one kind of writes, while the API server takes none of them."""

    failures: int = 0
    """In a row."""
    until: float = 0.0

    def count(self, answer: WriteAnswer, now: float, jitter: float) -> None:
        self.failures = self.failures + 1 if answer.result == WriteResult.UNAVAILABLE else 0
        if not self.failures:
            self.until = 0.0
            return
        delay = max(_OUTAGE_BACKOFF.seconds(self.failures, jitter), answer.retry_after * (1 + jitter / 4))
        self.until = now + delay


@dataclass(slots=True)
class _Target:
    """One policy."""

    verdict: PolicyVerdict | None = None
    uid: str = ""
    present: PolicyStatus | None = None
    """What the API holds, of the object of that uid."""
    written_at: float | None = None
    refusals: int = 0
    not_before: float = 0.0
    """After a refusal."""
    events: TokenBucket = field(default_factory=lambda: TokenBucket(EVENTS_PER_SECOND, EVENTS_BURST))
    told: str = ""
    """Reason in the newest Event; "" when that is not known."""

    def forget_object(self) -> None:
        self.uid, self.present = "", None

    def wanted(self, now_text: str) -> PolicyStatus | None:
        """What to write; None when there is nothing, or not both sides are known of one object."""
        if self.verdict is None or self.present is None or self.verdict.uid != self.uid:
            return None
        status = status_of(self.verdict, self.present, now_text)
        return status if status != self.present else None

    def due_at(self, wanted: PolicyStatus) -> float:
        if self.written_at is None:
            return self.not_before
        interval = POLICY_SECONDS
        if self.present is not None and same_but_counts(wanted, self.present):
            interval = max(interval, (wanted.nodes_selected or 0) * COUNT_SECONDS_A_NODE)
        return max(self.not_before, self.written_at + interval)


def status_of(verdict: PolicyVerdict, present: PolicyStatus, now_text: str) -> PolicyStatus:
    """What the API should hold. The time of transition changes only when the condition's status does."""
    accepted = str(verdict.reason == Acceptance.ACCEPTED)
    return PolicyStatus(
        accepted=accepted,
        reason=verdict.reason.value,
        message=verdict.message,
        observed_generation=verdict.generation,
        transitioned_at=present.transitioned_at if present.accepted == accepted else now_text,
        frontend=verdict.frontend,
        frontends=verdict.frontends,
        nodes_ready=verdict.nodes_ready,
        nodes_selected=verdict.nodes_selected,
        nodes=f"{verdict.nodes_ready}/{verdict.nodes_selected}",
    )


def same_but_counts(one: PolicyStatus, other: PolicyStatus) -> bool:
    counted = replace(one, nodes_ready=other.nodes_ready, nodes_selected=other.nodes_selected, nodes=other.nodes)
    return counted == other


class WritePlan:
    """Call what happened, then `next` for what to write now, one at a time; `ended` says what became of it."""

    def __init__(self) -> None:
        self._targets: dict[PolicyKey, _Target] = {}
        self._dirty: dict[PolicyKey, None] = {}
        """Policies whose status differs from what it should be, first come first."""
        self._events: deque[EventWrite] = deque()
        """At most _MOST_EVENTS, oldest first."""
        self._untold: dict[PolicyKey, EventWrite] = {}
        """The newest change of a policy for which there is no Event yet, since it had too many of them lately."""
        self._rate = TokenBucket(WRITES_PER_SECOND, BURST)
        # Apart, so that Events, should they alone not be taken, hold up no status.
        self._status_pause = _Pause()
        self._event_pause = _Pause()

    def apply(self, message: ApplyVerdicts) -> None:
        gone: Iterable[PolicyKey] = message.removed
        if message.complete:
            gone = self._targets.keys() - {each.key for each in message.verdicts}
        for key in list(gone):
            self._drop_verdict(key)
        for verdict in message.verdicts:
            self._targets.setdefault(verdict.key, _Target()).verdict = verdict
            self._check(verdict.key)

    def _drop_verdict(self, key: PolicyKey) -> None:
        """What the API holds is kept while it is there, or said to be: it may be of the next object of that name."""
        target = self._targets.get(key)
        if target is None or target.verdict is None:
            return
        if target.verdict.uid == target.uid:
            target.forget_object()
        target.verdict = None
        self._check(key)

    def see(self, message: PolicyStatusSeen) -> None:
        target = self._targets.setdefault(message.key, _Target())
        present = target.present
        if target.uid != message.uid:
            self._targets[message.key] = _Target(verdict=target.verdict, uid=message.uid, present=message.status)
        elif present is None or not 0 < message.status.version < present.version:  # else older than our own write
            target.present = message.status
        self._check(message.key)

    def gone(self, key: PolicyKey) -> None:
        """The API no longer holds it; the verdict, if there is one, ends with the resolver's word."""
        if key in self._targets:
            self._targets[key].forget_object()
            self._check(key)

    def _check(self, key: PolicyKey) -> None:
        target = self._targets[key]
        if target.verdict is None and target.present is None:
            del self._targets[key]
            self._dirty.pop(key, None)
        elif target.wanted("") is None:
            self._dirty.pop(key, None)
        else:
            self._dirty.setdefault(key)

    def next(self, now: float, now_text: str) -> Write | None:
        if now >= self._event_pause.until:
            self._tell_late(now)
            if self._events:
                return self._events.popleft() if self._rate.take(now) else None
        if now < self._status_pause.until:
            return None
        for key in self._dirty:
            target = self._targets[key]
            wanted = target.wanted(now_text)
            if wanted is None or target.present is None or target.due_at(wanted) > now:
                continue
            if not self._rate.take(now):
                return None
            del self._dirty[key]
            former = target.present.reason
            return StatusWrite(key=key, uid=target.uid, status=wanted, former_reason=former, decided_at=now_text)
        return None

    def ended(self, write: Write, answer: WriteAnswer, now: float, jitter: float) -> None:
        if isinstance(write, EventWrite):
            self._event_pause.count(answer, now, jitter)
            if answer.result == WriteResult.UNAVAILABLE:
                self._events.appendleft(write)
            elif answer.result == WriteResult.REFUSED and write.key in self._targets:
                self._targets[write.key].told = ""
            return
        self._status_pause.count(answer, now, jitter)
        target = self._targets.get(write.key)
        if target is None or target.uid != write.uid:
            return
        if answer.result == WriteResult.WRITTEN:
            self._written(target, write, answer, now)
        elif answer.result == WriteResult.REFUSED:
            target.refusals += 1
            target.not_before = now + _REFUSAL_BACKOFF.seconds(target.refusals, jitter)
        self._check(write.key)

    def _written(self, target: _Target, write: StatusWrite, answer: WriteAnswer, now: float) -> None:
        target.written_at = now
        target.refusals = 0
        if target.present is None or answer.version >= target.present.version:
            target.present = replace(write.status, version=answer.version)
        if write.former_reason != write.status.reason:
            self._untold[write.key] = EventWrite(
                key=write.key,
                uid=write.uid,
                reason=write.status.reason,
                message=write.status.message,
                happened_at=write.decided_at,
            )
            self._tell(write.key, target, now)

    def _tell_late(self, now: float) -> None:
        """Makes Events of changes that came too quickly, as soon as their policies may have one again."""
        for key, event in list(self._untold.items()):
            target = self._targets.get(key)
            if target is None or target.uid != event.uid:
                del self._untold[key]
            else:
                self._tell(key, target, now)

    def _tell(self, key: PolicyKey, target: _Target, now: float) -> None:
        """The newest Event of a policy must not contradict its state for good."""
        if self._untold[key].reason == target.told:
            del self._untold[key]  # back to what the newest Event says
        elif len(self._events) < _MOST_EVENTS and target.events.take(now):
            event = self._untold.pop(key)
            target.told = event.reason
            self._events.append(event)
