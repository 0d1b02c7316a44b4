"""The cgroups of the Pods whose calls are not redirected (P12). MapWriter owns the instance.

A Pod's cgroup may appear a while after the Pod was selected, or never. It may also be removed and created again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from actors.messages.desired import BackendPod, DesiredPolicy
from actors.writing.policy_write import PolicyWrite
from bpf.cgroups.pod_cgroups import PodCgroup, PodCgroups
from bpf.maps.hashes import cgroup_bits


class ExcludedPods:
    def __init__(self, root: Path) -> None:
        self._cgroups = PodCgroups(root)
        self._unfound: dict[int, tuple[BackendPod, ...]] = {}

    @property
    def unfound(self) -> Mapping[int, tuple[BackendPod, ...]]:
        """Policy id -> the Pods whose cgroup was not found."""
        return self._unfound

    def refresh(self, pods: Iterable[BackendPod]) -> frozenset[str]:
        """Reads the cgroups again if one of these Pods is unknown. Returns the uids and config hashes of the Pods whose
        cgroups have changed, of any policy."""
        return self._cgroups.update({names_of(pod) for pod in pods})

    def look_again(self) -> tuple[set[int], frozenset[str]]:
        """Looks for the Pods that were not found, and whether those that were found have moved.

        Returns the ids of the policies for which a Pod was found now, and what `refresh` returns.
        """
        missing = {names_of(pod) for pods in self._unfound.values() for pod in pods}
        moved = self._cgroups.update(missing, all_found=True)
        return {policy_id for policy_id, pods in self._unfound.items() if any(map(self._find, pods))}, moved

    def locate(self, policy: DesiredPolicy) -> PolicyWrite:
        """Returns what to write, with the cgroups of the policy's excluded Pods. Notes the Pods that have none."""
        pods = {pod: self._find(pod) for pod in policy.excluded}
        cgroups = [cgroup for found in pods.values() for cgroup in found]
        unfound = tuple(pod for pod, found in pods.items() if not found)
        if unfound:
            self._unfound[policy.policy_id] = unfound
        else:
            self._unfound.pop(policy.policy_id, None)
        if not cgroups:
            return PolicyWrite(policy=policy)
        ids = frozenset(cgroup.cgroup_id for cgroup in cgroups)
        return PolicyWrite(
            policy=policy,
            cgroups=ids,
            levels=(min(cgroup.level_from for cgroup in cgroups), max(cgroup.level_to for cgroup in cgroups)),
            bits=cgroup_bits(ids),
        )

    def forget(self, policy_id: int) -> None:
        """No policy with this id is in force."""
        self._unfound.pop(policy_id, None)

    def _find(self, pod: BackendPod) -> tuple[PodCgroup, ...]:
        return self._cgroups.find(*names_of(pod))


def names_of(pod: BackendPod) -> tuple[str, str]:
    """Returns the two names that the Pod's cgroup may have: the uid, or the config hash of a static Pod."""
    return pod.uid, pod.config_hash
