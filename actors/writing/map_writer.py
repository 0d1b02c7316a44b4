"""MapWriter: owns every row of the kernel maps that the programs do not write themselves, and the moment of attaching.

In: ApplyDesiredState (ConflictResolver), LeaseProbe (from QosTicker, by way of watchers and resolver), SweepAffinity
(AffinityAger), AffinitySliceDue (itself). Out: ResyncDesiredState (at start), DesiredStateApplied (StatusReporter,
MetricsExporter), BackendsRemoved (AffinityAger), ResyncSource (the watchers) when the lease ran out.

Nothing is deleted or attached before the first complete desired state; until then what an earlier agent installed
works.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import ClassVar

from actors.framework.actor import AgentActor
from actors.framework.messages import Message
from actors.messages.desired import ApplyDesiredState, BackendPod, DesiredPolicy, ResyncDesiredState
from actors.messages.reports import DesiredStateApplied, WriteFault
from actors.messages.subscriptions import ResyncSource
from actors.messages.upkeep import AffinitySliceDue, BackendsRemoved, LeaseProbe, SweepAffinity
from actors.writing.affinity import expired_rows
from actors.writing.lease import Judgement, LeaseKeeper, read_clock
from actors.writing.map_tables import MapTables
from actors.writing.room import PolicyWrite, Refusal, policy_row
from bpf.build import HOOKS
from bpf.datapath import Datapath
from bpf.packing import pack_affinity, unpack_affinity
from bpf.pod_cgroups import PodCgroup, PodCgroups
from bpf.probes import own_netns_cookie
from bpf.rows import AffinityRow
from config.domain.ids import PolicyKey

_log = logging.getLogger(__name__)

SWEEP_SLICE = 512
"""Affinity rows looked at in one go: some two milliseconds."""


class MapWriter(AgentActor):
    """`datapath` is prepared (pinned and locked) by run.py; the maps are opened anew at each start of the actor."""

    HANDLERS: ClassVar[Mapping[type[Message], str]] = {
        ApplyDesiredState: "_on_apply_desired_state",
        LeaseProbe: "_on_lease_probe",
        SweepAffinity: "_on_sweep_affinity",
        AffinitySliceDue: "_on_affinity_slice_due",
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
        self._refused: dict[int, Refusal] = {}
        """Service id -> why the kernel does not have it; who has waited longest comes first."""
        self._unfound: dict[int, tuple[BackendPod, ...]] = {}
        """Service id -> Pods whose cgroup was not found."""
        self._reported: tuple[WriteFault, ...] = ()
        self._attached = False
        self._unswept: Iterator[AffinityRow] | None = None
        """Rows that the present sweep has not looked at; None between two sweeps."""
        self._swept_ns = 0
        """Of the present sweep: when it was asked for."""
        self._next_sweep: SweepAffinity | None = None
        """Asked for during the present one."""

    def started(self) -> None:
        self._tables = MapTables(self._datapath.open_maps())
        self._cgroups = PodCgroups(self._datapath.cgroup)
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
            affected |= self._tables.policy_ids | set(self._by_id)
            self._policies.clear()
            self._by_id.clear()
        for key in message.removed:
            affected |= self._drop(key)
        for policy in message.upserted:
            affected |= self._drop(policy.key)
            self._policies[policy.key] = policy
            self._by_id[policy.policy_id].add(policy.key)
            affected.add(policy.policy_id)
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
        keys = self._by_id[former.policy_id]
        keys.discard(key)
        if not keys:
            del self._by_id[former.policy_id]
        return {former.policy_id}

    def _write(self, policy_ids: Iterable[int]) -> None:
        """Brings these ids to what is desired. Those that are in force, or take a frontend over, come first; the others
        get what room there is after that, and where room came to be, those that wait get it before those that are new.
        """
        targets = self._targets(policy_ids)
        present = {each: target for each, target in targets.items() if target is None or self._tables.serves(target)}
        before = self._tables.used
        self._apply(present)
        room_came = before.exceeds(self._tables.used)
        waiting = [each for each in self._refused if each in targets or room_came]
        if room_came:
            targets |= self._targets(self._refused.keys() - targets.keys())
        others = [*waiting, *(each for each in targets if each not in self._refused)]
        self._apply({each: targets[each] for each in others if each not in present})

    def _apply(self, targets: Mapping[int, PolicyWrite | None]) -> None:
        known = {each for each in targets if self._is_counted(each)}
        refused = self._tables.apply(targets, known)
        for policy_id in targets.keys() - refused.keys():
            self._refused.pop(policy_id, None)
        for policy_id, refusal in refused.items():
            _log.debug("policy id %d was not installed: %s", policy_id, refusal.message)
            self._refused[policy_id] = refusal  # at its place in the queue, when it is in there already

    def _is_counted(self, policy_id: int) -> bool:
        """Whether its counters are those of a policy that exists."""
        row = self._tables.counted_policy(policy_id)
        policies = (self._policies[key] for key in self._by_id.get(policy_id, ()))
        return any(policy_row(policy).is_same_policy(row) for policy in policies)

    def _targets(self, policy_ids: Iterable[int]) -> dict[int, PolicyWrite | None]:
        """An id without a policy in force has no rows. Other ids come too where a Pod of theirs has moved meanwhile."""
        ids = set(policy_ids)
        ids |= self._with(self._cgroups.update({_names(pod) for policy_id in ids for pod in self._excluded(policy_id)}))
        in_force = {policy_id: self._in_force(policy_id) for policy_id in sorted(ids)}
        policies = {policy_id: self._policies[keys[0]] if keys else None for policy_id, keys in in_force.items()}
        for policy_id, policy in policies.items():
            if policy is None:
                self._unfound.pop(policy_id, None)
        return {policy_id: self._locate(policy) if policy else None for policy_id, policy in policies.items()}

    def _excluded(self, policy_id: int) -> Iterator[BackendPod]:
        """Pods that its policy in force does not redirect."""
        for key in self._in_force(policy_id):
            yield from self._policies[key].excluded

    def _with(self, moved: frozenset[str]) -> set[int]:
        """Service ids whose policies don't redirect a Pod of such a uid or config hash."""
        if not moved:
            return set()
        return {
            policy_id
            for policy_id in self._by_id
            if any(not moved.isdisjoint(_names(pod)) for pod in self._excluded(policy_id))
        }

    def _find(self, pod: BackendPod) -> tuple[PodCgroup, ...]:
        return self._cgroups.find(*_names(pod))

    def _locate(self, policy: DesiredPolicy) -> PolicyWrite:
        """With the cgroups of the Pods that the policy does not redirect (P12); notes those that are not there."""
        pods = {pod: self._find(pod) for pod in policy.excluded}
        cgroups = [cgroup for found in pods.values() for cgroup in found]
        unfound = tuple(pod for pod, found in pods.items() if not found)
        if unfound:
            self._unfound[policy.policy_id] = unfound
        else:
            self._unfound.pop(policy.policy_id, None)
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
        self._write({*self._newly_found(), *(each for each, why in self._refused.items() if why.by_kernel)})
        attached = len(self._datapath.attached_hooks()) == len(HOOKS)
        if attached != self._attached or self._faults() != self._reported or withheld != self._withheld:
            if not attached:
                _log.error("somebody detached the programs; restart the agent to attach them again")
            self._report(None)

    def _renew_lease(self, sent_ns: int, as_of: float) -> None:
        judgement = self._lease.judge(sent_ns, as_of, read_clock())
        if judgement == Judgement.RELIST:
            _log.warning("this process was stopped or stuck for longer than its lease; reading all sources again")
            for watcher in ("PolicyWatcher", "ServiceWatcher", "EndpointWatcher"):
                self.send(watcher, ResyncSource(since=time.monotonic()))
        if judgement == Judgement.RENEW or not self._lease.lease_ns:
            if self._withheld:
                _log.info("all sources have been read again; the lease is renewed")
            self._withheld = ""
            self._tables.maps.renew_lease(sent_ns)
            return
        self._withheld = "the lease ran out: calls take the normal way until all sources have been read again"
        self._tables.maps.renew_lease(0)  # ends it at once: the programs' clock stands still while the machine sleeps

    def _newly_found(self) -> set[int]:
        """Service ids with a Pod whose cgroup has come, went or was made again; it may be long in coming, or never."""
        missing = {_names(pod) for pods in self._unfound.values() for pod in pods}
        moved = self._cgroups.update(missing, all_found=True)
        found = {policy_id for policy_id, pods in self._unfound.items() if any(map(self._find, pods))}
        return found | self._with(moved)

    def _on_sweep_affinity(self, message: SweepAffinity) -> None:
        if self._unswept is not None:
            self._next_sweep = message
            return
        self._unswept, self._swept_ns = self._tables.maps.affinity_rows(), message.now_ns
        self.tell_self(AffinitySliceDue())

    def _on_affinity_slice_due(self, _message: AffinitySliceDue) -> None:
        """A few rows, so that what has come meanwhile waits for them alone."""
        assert self._unswept is not None
        rows = list(islice(self._unswept, SWEEP_SLICE))
        for row in self._expired(rows):
            self._delete_expired(row)
        if len(rows) == SWEEP_SLICE:
            self.tell_self(AffinitySliceDue())
            return
        self._unswept = None
        if self._next_sweep is not None:
            again, self._next_sweep = self._next_sweep, None
            self._on_sweep_affinity(again)

    def _expired(self, rows: Iterable[AffinityRow]) -> Iterator[AffinityRow]:
        return expired_rows(rows, self._tables.frontends, self._tables.backends, self._swept_ns)

    def _delete_expired(self, row: AffinityRow) -> None:
        """It was read a while ago. A program may renew it at any time, also between a second look and the removal: then
        what was removed is put back, unless the client has got another row already."""
        affinity, key = self._tables.maps["affinity"], pack_affinity(row)[0]
        if self._is_expired(key, affinity.lookup(key)):
            removed = affinity.take(key)
            if removed is not None and not self._is_expired(key, removed):
                affinity.add(key, removed)

    def _is_expired(self, key: bytes, value: bytes | None) -> bool:
        return value is not None and any(self._expired([unpack_affinity(key, value)]))

    def _faults(self) -> tuple[WriteFault, ...]:
        faults = []
        for policy_id, why in self._refused.items():
            faults += [WriteFault(key=key, failed=True, message=why.message) for key in self._in_force(policy_id)]
        for policy_id, pods in self._unfound.items():
            names = ", ".join(sorted(str(pod.key) for pod in pods))
            message = f"no cgroup was found for {names}; until one is found, calls from there are redirected as well"
            faults += [WriteFault(key=key, failed=False, message=message) for key in self._in_force(policy_id)]
        return tuple(faults)

    def _in_force(self, policy_id: int) -> list[PolicyKey]:
        return [key for key in self._by_id.get(policy_id, ()) if self._policies[key].in_force]

    def _report(self, apply_seconds: float | None) -> None:
        self._reported = self._faults()
        self._attached = len(self._datapath.attached_hooks()) == len(HOOKS)
        report = DesiredStateApplied(
            faults=self._reported, attached=self._attached, apply_seconds=apply_seconds, lease_withheld=self._withheld
        )
        self.send("StatusReporter", report)
        self.send("MetricsExporter", report)
        if self._tables.take_backends_removed():
            self.send("AffinityAger", BackendsRemoved())


def _names(pod: BackendPod) -> tuple[str, str]:
    """By which its cgroup is found."""
    return pod.uid, pod.config_hash
