"""Which status is to be written to which policy, and when. Pure; the clock is passed in.

Only what differs from the API server's state is written. Every agent watches the policies, so a write of one status
reaches all nodes. Therefore each policy waits a second between two writes, or longer in a big cluster where only
counts have changed, and all writes together keep to a rate.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from actors.controller.event_plan import EventPlan
from actors.controller.outage_pause import OutagePause
from actors.framework.rates import TokenBucket
from actors.messages.verdicts import Acceptance, ApplyVerdicts, PolicyStatusSeen, PolicyVerdict
from config.backoff import Backoff
from config.domain.ids import PolicyKey
from k8s.objects.model import PolicyStatus
from k8s.status.write_requests import EventWrite, StatusWrite, Write, WriteAnswer, WriteResult

WRITES_PER_SECOND = 20.0
BURST = 20.0
POLICY_SECONDS = 1.0
"""Between two writes to one policy."""
COUNT_SECONDS_PER_NODE = 0.01
"""The same, when only counts have changed: one second for up to 100 nodes, 10 s for 1,000 nodes."""
_REFUSAL_BACKOFF = Backoff(first=0.5, longest=300.0)
"""While the API server refuses the status of one policy."""


@dataclass(slots=True)
class _Target:
    """One policy: the verdict on it, and the status that the API server has for it."""

    verdict: PolicyVerdict | None = None
    uid: str = ""
    """Of the object that `present` belongs to; "" when there is none."""
    present: PolicyStatus | None = None
    written_at: float | None = None
    refusals: int = 0
    """Number of refusals since the last success."""
    not_before: float = 0.0
    """Time of the next try after a refusal."""

    def forget_object(self) -> None:
        self.uid, self.present = "", None

    def wanted(self, now_text: str) -> PolicyStatus | None:
        """Returns the status to write. None when it is there already, or when verdict and status are not both known for
        the same object."""
        if self.verdict is None or self.present is None or self.verdict.uid != self.uid:
            return None
        status = status_of(self.verdict, self.present, now_text)
        return status if status != self.present else None

    def due_at(self, wanted: PolicyStatus) -> float:
        if self.written_at is None:
            return self.not_before
        interval = POLICY_SECONDS
        if self.present is not None and same_but_counts(wanted, self.present):
            interval = max(interval, (wanted.nodes_selected or 0) * COUNT_SECONDS_PER_NODE)
        return max(self.not_before, self.written_at + interval)


def status_of(verdict: PolicyVerdict, present: PolicyStatus, now_text: str) -> PolicyStatus:
    """Returns the status that the API server should have. lastTransitionTime changes only with the condition's
    status."""
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
    """Call `apply`, `status_seen` and `status_gone` with what happened, then `next` for the write to do now, one at a
    time, and `ended` with its answer."""

    def __init__(self) -> None:
        self._targets: dict[PolicyKey, _Target] = {}
        self._differing: dict[PolicyKey, None] = {}
        """Policies whose status differs from the wanted one; those that have differed for longest come first."""
        self._rate = TokenBucket(WRITES_PER_SECOND, BURST)
        self._pause = OutagePause()
        self._events = EventPlan()
        """It pauses by itself: when the API server accepts no Events, statuses are still written."""

    def apply(self, message: ApplyVerdicts) -> None:
        removed: Iterable[PolicyKey] = message.removed
        if message.complete:
            removed = self._targets.keys() - {each.key for each in message.verdicts}
        for key in list(removed):
            self._drop_verdict(key)
        for verdict in message.verdicts:
            self._targets.setdefault(verdict.key, _Target()).verdict = verdict
            self._check(verdict.key)

    def _drop_verdict(self, key: PolicyKey) -> None:
        """The policy that the verdict was about no longer exists. The status stays when it belongs to another object,
        since the next object of the same name may have been seen already."""
        target = self._targets.get(key)
        if target is None or target.verdict is None:
            return
        if target.verdict.uid == target.uid:
            self._forget_object(key, target)
        target.verdict = None
        self._check(key)

    def status_seen(self, message: PolicyStatusSeen) -> None:
        target = self._targets.setdefault(message.key, _Target())
        present = target.present
        if target.uid != message.uid:
            self._events.forget(message.key)
            self._targets[message.key] = _Target(verdict=target.verdict, uid=message.uid, present=message.status)
        elif present is None or not 0 < message.status.version < present.version:  # else it is older than our own write
            target.present = message.status
        self._check(message.key)

    def status_gone(self, key: PolicyKey) -> None:
        """The API server has no such policy. If there is a verdict, it stays until ConflictResolver removes it."""
        if key in self._targets:
            self._forget_object(key, self._targets[key])
            self._check(key)

    def _forget_object(self, key: PolicyKey, target: _Target) -> None:
        target.forget_object()
        self._events.forget(key)

    def _check(self, key: PolicyKey) -> None:
        """Keeps `_targets` and `_differing` in step with what is known of this policy."""
        target = self._targets[key]
        if target.verdict is None and target.present is None:
            del self._targets[key]
            self._differing.pop(key, None)
        elif target.wanted("") is None:
            self._differing.pop(key, None)
        else:
            self._differing.setdefault(key)

    def next(self, now: float, now_text: str) -> Write | None:
        """Returns the write that is due. `now` is time.monotonic(), and `now_text` the time of day (RFC 3339)."""
        if self._events.is_due(now):
            return self._events.next() if self._rate.take(now) else None
        if now < self._pause.until:
            return None
        for key in self._differing:
            target = self._targets[key]
            wanted = target.wanted(now_text)
            if wanted is None or target.present is None or target.due_at(wanted) > now:
                continue
            if not self._rate.take(now):
                return None
            del self._differing[key]
            former = target.present.reason
            return StatusWrite(key=key, uid=target.uid, status=wanted, former_reason=former, decided_at=now_text)
        return None

    def ended(self, write: Write, answer: WriteAnswer, now: float, jitter: float) -> None:
        if isinstance(write, EventWrite):
            self._events.ended(write, answer, now, jitter)
            return
        self._pause.note(answer, now, jitter)
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
            event = EventWrite(
                key=write.key,
                uid=write.uid,
                reason=write.status.reason,
                message=write.status.message,
                happened_at=write.decided_at,
            )
            self._events.reason_changed(event, now)
