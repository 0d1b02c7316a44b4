"""MapWriter: owns every row of the kernel maps that the programs do not write themselves, and the moment of attaching.

In: ApplyDesiredState (ConflictResolver), LeaseProbe (from QosTicker, by way of watchers and resolver), SweepAffinity
(AffinityAger). Out: ResyncDesiredState (at start), DesiredStateApplied (StatusReporter, MetricsExporter),
BackendsRemoved (AffinityAger), ResyncSource (the watchers) when the lease ran out.

Nothing is deleted or attached before the first complete desired state; until then what an earlier agent installed
works.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import ClassVar

from actors.affinity import expired_rows
from actors.base import AgentActor
from actors.lease import Judgement, LeaseKeeper, read_clock
from actors.map_tables import MapTables, PolicyWrite
from actors.messages import (
    ApplyDesiredState,
    BackendPod,
    BackendsRemoved,
    DesiredPolicy,
    DesiredStateApplied,
    LeaseProbe,
    Message,
    ResyncDesiredState,
    ResyncSource,
    SweepAffinity,
    WriteFault,
)
from bpf.build import HOOKS
from bpf.cgroups import PodCgroup, PodCgroups
from bpf.datapath import Datapath
from bpf.probes import own_netns_cookie
from bpf.rows import pack_affinity
from k8s.objects import PolicyKey

_log = logging.getLogger(__name__)


class MapWriter(AgentActor):
    """`datapath` is prepared (pinned and locked) by run.py; the maps are opened anew at each start of the actor."""

    HANDLERS: ClassVar[Mapping[type[Message], str]] = {
        ApplyDesiredState: "_on_apply_desired_state",
        LeaseProbe: "_on_lease_probe",
        SweepAffinity: "_on_sweep_affinity",
    }

    def __init__(self, *, datapath: Datapath, lease: LeaseKeeper) -> None:
        super().__init__()
        self._datapath = datapath
        self._lease = lease
        self._withheld = ""
        """Why the lease is not renewed; "" when it is."""
        self._policies: dict[PolicyKey, DesiredPolicy] = {}
        """Every existing policy, as last desired."""
        self._by_id: defaultdict[int, set[PolicyKey]] = defaultdict(set)
        """Service id -> policies that have it; at most one of them is in force."""
        self._refused: dict[int, str] = {}
        """Service id -> why the kernel does not have it."""
        self._unfound: dict[int, tuple[str, ...]] = {}
        """Service id -> Pods whose cgroup was not found."""
        self._reported: tuple[WriteFault, ...] = ()
        self._attached = False

    def started(self) -> None:
        self._tables = MapTables(self._datapath.open_maps())
        self._cgroups = PodCgroups(self._datapath.cgroup)
        self._cgroups.refresh()
        self._tables.maps.write_config(host_netns=own_netns_cookie(), lease_ns=self._lease.lease_ns)
        self._synced = False
        self.send("ConflictResolver", ResyncDesiredState())

    def stopped(self) -> None:
        self._tables.maps.close()

    def _on_apply_desired_state(self, message: ApplyDesiredState) -> None:
        if not (self._synced or message.complete):
            return  # sent before the resolver heard of our restart; the complete state follows
        affected: set[int] = set()
        if message.complete:
            affected |= self._tables.service_ids | set(self._by_id)
            self._policies.clear()
            self._by_id.clear()
        for key in message.removed:
            affected |= self._drop(key)
        for policy in message.upserted:
            affected |= self._drop(policy.key)
            self._policies[policy.key] = policy
            self._by_id[policy.service_id].add(policy.key)
            affected.add(policy.service_id)
        self._write(affected)
        if not self._synced:
            self._synced = True
            self._renew_lease(time.monotonic_ns(), message.as_of)
            self._datapath.attach_all()
        self._report(time.monotonic() - message.received_at)

    def _drop(self, key: PolicyKey) -> set[int]:
        former = self._policies.pop(key, None)
        if former is None:
            return set()
        keys = self._by_id[former.service_id]
        keys.discard(key)
        if not keys:
            del self._by_id[former.service_id]
        return {former.service_id}

    def _write(self, service_ids: Iterable[int]) -> None:
        """Brings these ids to what is desired; where that made room, tries the refused ones again."""
        rows = len(self._tables.frontends), self._tables.used_backends
        targets = self._targets(service_ids)
        self._apply(targets)
        others = self._refused.keys() - targets.keys()
        if others and (len(self._tables.frontends) < rows[0] or self._tables.used_backends < rows[1]):
            self._apply(self._targets(others))

    def _apply(self, targets: Mapping[int, PolicyWrite | None]) -> None:
        for service_id in targets:
            self._refused.pop(service_id, None)
        refused = self._tables.apply(targets, self._by_id)
        for service_id, why in refused.items():
            _log.debug("service id %d refused: %s", service_id, why)
        self._refused |= refused

    def _targets(self, service_ids: Iterable[int]) -> dict[int, PolicyWrite | None]:
        """An id without a policy in force has no rows."""
        in_force = {service_id: self._in_force(service_id) for service_id in sorted(service_ids)}
        policies = {service_id: self._policies[keys[0]] if keys else None for service_id, keys in in_force.items()}
        if any(self._find(pod) is None for policy in policies.values() if policy for pod in policy.excluded):
            self._cgroups.refresh()  # once: it walks the whole tree
        for service_id, policy in policies.items():
            if policy is None:
                self._unfound.pop(service_id, None)
        return {service_id: self._locate(policy) if policy else None for service_id, policy in policies.items()}

    def _find(self, pod: BackendPod) -> PodCgroup | None:
        return self._cgroups.find(pod.uid, pod.config_hash)

    def _locate(self, policy: DesiredPolicy) -> PolicyWrite:
        """With the cgroups of the Pods that the policy does not redirect (P12); notes those that are not there."""
        pods = {pod.key: self._find(pod) for pod in policy.excluded}
        cgroups = [cgroup for cgroup in pods.values() if cgroup]
        unfound = tuple(sorted(str(key) for key, cgroup in pods.items() if cgroup is None))
        if unfound:
            self._unfound[policy.service_id] = unfound
        else:
            self._unfound.pop(policy.service_id, None)
        if not cgroups:
            return PolicyWrite(policy=policy)
        return PolicyWrite(
            policy=policy,
            cgroups=frozenset(cgroup.cgroup_id for cgroup in cgroups),
            levels=(min(cgroup.level_from for cgroup in cgroups), max(cgroup.level_to for cgroup in cgroups)),
        )

    def _on_lease_probe(self, message: LeaseProbe) -> None:
        """All that lie between a source and the kernel are well as of `sent_ns`. Also the moment for second tries."""
        if not self._synced:
            return
        withheld = self._withheld
        self._renew_lease(message.sent_ns, message.as_of)
        self._write(self._newly_found())
        attached = len(self._datapath.attached_hooks()) == len(HOOKS)
        if attached != self._attached or self._faults() != self._reported or withheld != self._withheld:
            if not attached:
                _log.error("the programs were detached by somebody; restart the agent to attach them again")
            self._report(-1.0)

    def _renew_lease(self, sent_ns: int, as_of: float) -> None:
        judgement = self._lease.judge(sent_ns, as_of, read_clock())
        if judgement == Judgement.RELIST:
            _log.warning("this process was stopped or stuck for longer than its lease: all sources are read again")
            for watcher in ("PolicyWatcher", "ServiceWatcher", "EndpointWatcher"):
                self.send(watcher, ResyncSource(since=time.monotonic()))
        if judgement == Judgement.RENEW or not self._lease.lease_ns:
            if self._withheld:
                _log.info("all sources were read again: the lease is renewed")
            self._withheld = ""
            self._tables.maps.renew_lease(sent_ns)
            return
        self._withheld = "the lease ran out: calls take the normal way until all sources have been read again"
        self._tables.maps.renew_lease(0)  # ends it at once: the programs' clock stands still while the machine sleeps

    def _newly_found(self) -> list[int]:
        """Service ids of which a Pod's cgroup has come to be; a Pod may be long in coming, or never."""
        if not self._unfound:
            return []
        self._cgroups.refresh()
        return [service_id for service_id, unfound in self._unfound.items() if self._unfound_of(service_id) != unfound]

    def _unfound_of(self, service_id: int) -> tuple[str, ...]:
        pods = [pod for key in self._in_force(service_id) for pod in self._policies[key].excluded]
        return tuple(sorted(str(pod.key) for pod in pods if self._find(pod) is None))

    def _on_sweep_affinity(self, message: SweepAffinity) -> None:
        """A row that a program renews between our look and our deletion is lost, and that client's affinity with it:
        two microseconds, of a row that was past its time-out."""
        maps = self._tables.maps
        for row in expired_rows(maps.affinity_rows(), self._tables.frontends, self._tables.backends, message.now_ns):
            maps["affinity"].delete(pack_affinity(row)[0])

    def _faults(self) -> tuple[WriteFault, ...]:
        faults = []
        for service_id, why in self._refused.items():
            faults += [WriteFault(key=key, failed=True, message=why) for key in self._in_force(service_id)]
        for service_id, pods in self._unfound.items():
            message = f"no cgroup was found for {', '.join(pods)}: its own calls are redirected, too, until it is"
            faults += [WriteFault(key=key, failed=False, message=message) for key in self._in_force(service_id)]
        return tuple(faults)

    def _in_force(self, service_id: int) -> list[PolicyKey]:
        return [key for key in self._by_id.get(service_id, ()) if self._policies[key].in_force]

    def _report(self, seconds: float) -> None:
        self._reported = self._faults()
        self._attached = len(self._datapath.attached_hooks()) == len(HOOKS)
        report = DesiredStateApplied(
            faults=self._reported, attached=self._attached, seconds=seconds, lease_withheld=self._withheld
        )
        self.send("StatusReporter", report)
        self.send("MetricsExporter", report)
        if self._tables.take_backends_removed():
            self.send("AffinityAger", BackendsRemoved())
