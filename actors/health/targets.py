"""Which Pods are checked for which policies, and what their results mean. Pure; the clock is passed in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from actors.messages.checks import CheckedPod, ChecksSelected, HealthChanged
from config.domain.checks import DnsProbe, HealthCheck, HttpProbe, Probe, TcpProbe
from config.domain.ids import NamespacedName, PolicyKey

CHANGE_SECONDS = 1.0
"""At least this long between two changes of one Pod for one policy, so that a Pod that flaps does not keep everybody
busy."""
_KINDS: dict[type[Probe], str] = {DnsProbe: "dns", TcpProbe: "tcp", HttpProbe: "http"}


@dataclass(slots=True, eq=False)
class Target:
    """One Pod under the check of one policy."""

    policy: PolicyKey
    check: HealthCheck
    pod: CheckedPod
    why_out_of_use: str = ""
    """What the check found; "" while the Pod counts as healthy."""
    streak: int = 0
    """How many results in a row contradict `why_out_of_use`: failures of a healthy Pod, successes of another."""
    changed_at: float = float("-inf")

    def add_result(self, failure: str, now: float) -> bool:
        """`failure` says what the check saw; "" is a success. Returns whether the Pod went out of use, or came back."""
        was_healthy = not self.why_out_of_use
        if was_healthy == (not failure):
            self.streak = 0
            return False
        self.streak += 1
        needed = self.check.failure_threshold if was_healthy else self.check.success_threshold
        if self.streak < needed or now < self.changed_at + CHANGE_SECONDS:
            return False
        self.why_out_of_use = f"its {self._name} failed: {failure}" if failure else ""
        self.streak = 0
        self.changed_at = now
        return True

    @property
    def _name(self) -> str:
        return f"{_KINDS[type(self.check.probe)]} check of port {self.check.port}"

    def finding(self, now: float) -> HealthChanged:
        return HealthChanged(
            policy=self.policy,
            check=self.check,
            pod=self.pod.key,
            uid=self.pod.uid,
            why_out_of_use=self.why_out_of_use,
            received_at=now,
        )

    def is_about(self, check: HealthCheck, pod: CheckedPod) -> bool:
        """Whether the results so far are those of this check and this Pod."""
        return (self.check, self.pod.uid, self.pod.address) == (check, pod.uid, pod.address)


@dataclass(slots=True)
class Selection:
    """What a ChecksSelected changes."""

    begun: list[Target] = field(default_factory=list)
    ended: list[Target] = field(default_factory=list)
    disputed: list[Target] = field(default_factory=list)
    """Targets for which ConflictResolver's state differs from what was found here, so that it needs a HealthChanged."""


class Targets:
    def __init__(self) -> None:
        self._of_policy: dict[PolicyKey, dict[NamespacedName, Target]] = {}

    def select(self, message: ChecksSelected) -> Selection:
        selection = Selection()
        present = {each.key for each in message.policies}
        gone: Iterable[PolicyKey] = self._of_policy.keys() - present if message.complete else message.removed
        for key in gone:
            selection.ended += self._of_policy.pop(key, {}).values()
        for policy in message.policies:
            former = self._of_policy.pop(policy.key, {})
            if policy.check is not None and policy.pods:
                self._of_policy[policy.key] = {
                    pod.key: _target(policy.key, policy.check, pod, former, selection) for pod in policy.pods
                }
            selection.ended += former.values()
        return selection


def _target(
    policy: PolicyKey,
    check: HealthCheck,
    pod: CheckedPod,
    former: dict[NamespacedName, Target],
    selection: Selection,
) -> Target:
    """Returns the target for this Pod: the one in `former`, which is removed there, or a new one."""
    target = former.get(pod.key)
    if target is None or not target.is_about(check, pod):
        target = Target(policy=policy, check=check, pod=pod, why_out_of_use=pod.why_out_of_use)
        selection.begun.append(target)
        return target
    del former[pod.key]
    target.pod = pod
    if bool(target.why_out_of_use) != bool(pod.why_out_of_use):
        selection.disputed.append(target)
    return target
