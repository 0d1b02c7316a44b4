"""What ContainerWatcher and HealthChecker found about Pods that are usable according to the API (P18, P19). Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from actors.messages.backends import ContainersEnded
from actors.messages.checks import HealthChanged
from config.domain.ids import NamespacedName, PolicyKey
from k8s.objects.model import Pod


class PodHealth:
    """A finding counts only for the Pod with the uid that it names, not for a later Pod with the same name."""

    def __init__(self) -> None:
        self._ended: dict[NamespacedName, ContainersEnded] = {}
        """Pods whose containers have ended, or whose cgroup is gone."""
        self._unhealthy: defaultdict[PolicyKey, dict[NamespacedName, HealthChanged]] = defaultdict(dict)
        """Pods that a policy's check has put out of use."""

    def containers_ended(self, found: ContainersEnded) -> None:
        """It counts until the Pod's status names other containers, or a later finding says that none has ended."""
        if found.containers or found.is_gone:
            self._ended[found.pod] = found
        else:
            self._ended.pop(found.pod, None)

    def health_changed(self, found: HealthChanged) -> None:
        """It counts until a later finding says that the Pod is back in use."""
        if found.why_out_of_use:
            self._unhealthy[found.policy][found.pod] = found
        else:
            self._drop(found.policy, found.pod)

    def forget_pod(self, key: NamespacedName) -> None:
        self._ended.pop(key, None)
        for policy in list(self._unhealthy):
            self._drop(policy, key)

    def forget_checks(self, policy: PolicyKey) -> None:
        """The policy has another check, or none, or no longer exists."""
        self._unhealthy.pop(policy, None)

    def _drop(self, policy: PolicyKey, pod: NamespacedName) -> None:
        self._unhealthy[policy].pop(pod, None)
        if not self._unhealthy[policy]:
            del self._unhealthy[policy]

    def ended(self, pods: Iterable[Pod]) -> dict[NamespacedName, str]:
        """Those of these Pods that a container's end has put out of use -> why."""
        return {pod.key: why for pod in pods if (why := self._why_ended(pod))}

    def _why_ended(self, pod: Pod) -> str:
        found = self._ended.get(pod.key)
        if found is None or found.uid != pod.uid:
            return ""
        if found.is_gone:
            return "its cgroup is gone"
        return "a container of it has ended" if found.containers & pod.containers else ""

    def unhealthy(self, policy: PolicyKey, pods: Iterable[Pod]) -> dict[NamespacedName, str]:
        """Those of these Pods that the policy's check has put out of use -> why."""
        of_policy = self._unhealthy.get(policy)
        if not of_policy:
            return {}
        found = ((pod, of_policy.get(pod.key)) for pod in pods)
        return {pod.key: each.why_out_of_use for pod, each in found if each is not None and each.uid == pod.uid}
