"""MapWriter: writes what the policies ask of the kernel into its maps, renews the lease, and attaches the programs.

It owns the rows that the table of kernel maps in docs/architecture.md gives to `actors/writing/`.

In: ApplyDesiredState (ConflictResolver), LeaseProbe (from QosTicker, through the watchers and ConflictResolver),
SweepAffinity (AffinityAger), AffinitySliceDue (itself). Out: ResyncDesiredState (ConflictResolver), at start;
DesiredStateApplied (StatusReporter, MetricsExporter), BackendsRemoved (AffinityAger), ResyncSource (the watchers) when
the lease ran out.

Before the first complete desired state it deletes and attaches nothing, and what an earlier agent installed keeps
working.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from typing import ClassVar

from actors.framework.actor import AgentActor
from actors.framework.messages import Message
from actors.messages.desired import ApplyDesiredState
from actors.messages.reports import REPORTERS, DesiredStateApplied, WriteFault
from actors.messages.resync import ResyncDesiredState, ResyncSource
from actors.messages.subscriptions import WATCHERS
from actors.messages.upkeep import AffinitySliceDue, BackendsRemoved, LeaseProbe, SweepAffinity
from actors.writing.affinity import AffinitySweep
from actors.writing.backend_usage import BackendUsage
from actors.writing.clocks import read_clock
from actors.writing.desired_policies import DesiredPolicies
from actors.writing.excluded_pods import ExcludedPods
from actors.writing.lease import Judgement, LeaseKeeper
from actors.writing.map_tables import MapTables
from actors.writing.policy_write import PolicyWrite, policy_row
from actors.writing.room import Refusal
from bpf.build import HOOKS
from bpf.lifecycle.datapath import Datapath
from bpf.netns import own_netns_cookie

_log = logging.getLogger(__name__)


class MapWriter(AgentActor):
    """`datapath` has been prepared (pinned and locked) by run.py. The actor opens the maps at each of its starts."""

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
        """Why the lease is not renewed; "" while it is renewed."""
        self._policies = DesiredPolicies()
        self._refused: dict[int, Refusal] = {}
        """Policy id -> why it is not in the kernel. The policy that has waited for longest comes first."""
        self._reported: tuple[WriteFault, ...] = ()
        self._attached = False
        """Whether all hooks were attached when the kernel was last asked."""

    def started(self) -> None:
        self._tables = MapTables(self._datapath.open_maps())
        self._usage = BackendUsage(self._tables.maps)
        self._sweep = AffinitySweep(self._tables)
        self._excluded_pods = ExcludedPods(self._datapath.cgroup)
        self._tables.maps.write_config(host_netns=own_netns_cookie(), lease_ns=self._lease.lease_ns)
        self._synced = False
        self.send("ConflictResolver", ResyncDesiredState())

    def stopped(self) -> None:
        self._tables.maps.close()

    def _on_apply_desired_state(self, message: ApplyDesiredState) -> None:
        if not (self._synced or message.complete):
            return  # sent before ConflictResolver heard of our start; the complete state follows
        affected = self._tables.policy_ids if message.complete else set()
        self._write(affected | self._policies.apply(message))
        self._usage.apply(message)
        if not self._synced:
            self._synced = True
            self._renew_lease(time.monotonic_ns(), message.as_of)
            self._datapath.attach_all()
            self._attached = self._all_are_attached()
        self._report(time.monotonic() - message.received_at)

    def _write(self, policy_ids: Iterable[int]) -> None:
        """Brings these policies to what is desired.

        Policies that have frontends in the kernel, or that take over one, come first. The others get the room that is
        left. When writing the first ones frees room, policies that are waiting get it before those that are new.
        """
        targets = self._targets(policy_ids)
        first = {each: target for each, target in targets.items() if target is None or self._tables.goes_first(target)}
        before = self._tables.used
        self._apply(first)
        room_was_freed = before.exceeds(self._tables.used)
        waiting = [each for each in self._refused if each in targets or room_was_freed]
        if room_was_freed:
            targets |= self._targets(self._refused.keys() - targets.keys())
        others = [*waiting, *(each for each in targets if each not in self._refused)]
        self._apply({each: targets[each] for each in others if each not in first})

    def _apply(self, targets: Mapping[int, PolicyWrite | None]) -> None:
        known = {each for each in targets if self._is_counted(each)}
        refused = self._tables.apply(targets, known)
        for policy_id in targets.keys() - refused.keys():
            self._refused.pop(policy_id, None)
        for policy_id, refusal in refused.items():
            _log.debug("policy id %d was not installed: %s", policy_id, refusal.message)
            self._refused[policy_id] = refusal  # a policy that is in the queue already keeps its place

    def _is_counted(self, policy_id: int) -> bool:
        """Whether the counters of this id belong to a policy that exists."""
        row = self._tables.counted_policy(policy_id)
        return any(policy_row(policy).is_same_policy(row) for policy in self._policies.with_id(policy_id))

    def _targets(self, policy_ids: Iterable[int]) -> dict[int, PolicyWrite | None]:
        """Returns what to write for each policy; an id without a policy in force has no rows.

        Other policies are added when the cgroup of a Pod that they exclude has changed meanwhile.
        """
        ids = set(policy_ids)
        ids |= self._policies.excluding(
            self._excluded_pods.refresh(pod for policy_id in ids for pod in self._policies.excluded(policy_id))
        )
        targets: dict[int, PolicyWrite | None] = {}
        for policy_id in sorted(ids):
            in_force = self._policies.in_force(policy_id)
            if not in_force:
                self._excluded_pods.forget(policy_id)
            targets[policy_id] = self._excluded_pods.locate(in_force[0]) if in_force else None
        return targets

    def _on_lease_probe(self, message: LeaseProbe) -> None:
        """Renews the lease. As probes arrive each second, this is also the moment to retry what failed."""
        if not self._synced:
            return
        withheld = self._withheld
        self._renew_lease(message.sent_ns, message.as_of)
        self._write({*self._newly_found(), *(each for each, why in self._refused.items() if why.by_kernel)})
        was_attached, self._attached = self._attached, self._all_are_attached()
        if self._attached != was_attached or self._faults() != self._reported or withheld != self._withheld:
            if not self._attached:
                _log.error("somebody detached the programs; restart the agent to attach them again")
            self._report(None)

    def _all_are_attached(self) -> bool:
        """Asks the kernel, which takes a third of a millisecond, so do not call this for each change."""
        return len(self._datapath.attached_hooks()) == len(HOOKS)

    def _renew_lease(self, sent_ns: int, as_of: float) -> None:
        judgement = self._lease.judge(sent_ns, as_of, read_clock())
        if judgement == Judgement.RELIST:
            _log.warning("this process was stopped or stuck for longer than its lease; reading all sources again")
            for watcher in WATCHERS:
                self.send(watcher, ResyncSource(since=time.monotonic()))
        if judgement == Judgement.RENEW or not self._lease.lease_ns:
            if self._withheld:
                _log.info("all sources have been read again; the lease is renewed")
            self._withheld = ""
            self._tables.maps.renew_lease(sent_ns)
            return
        self._withheld = "the lease ran out: calls take the normal way until all sources have been read again"
        # End it at once. While the machine sleeps, the clock that the programs read stands still.
        self._tables.maps.renew_lease(0)

    def _newly_found(self) -> set[int]:
        """Returns the policies that exclude a Pod whose cgroup has appeared, disappeared or moved."""
        found, moved = self._excluded_pods.look_again()
        return found | self._policies.excluding(moved)

    def _on_sweep_affinity(self, message: SweepAffinity) -> None:
        if self._sweep.request(message.now_ns):
            self.tell_self(AffinitySliceDue())

    def _on_affinity_slice_due(self, _message: AffinitySliceDue) -> None:
        if self._sweep.run_slice():
            self.tell_self(AffinitySliceDue())

    def _faults(self) -> tuple[WriteFault, ...]:
        faults = []
        for policy_id, why in self._refused.items():
            in_force = self._policies.in_force(policy_id)
            faults += [WriteFault(key=policy.key, failed=True, message=why.message) for policy in in_force]
        for policy_id, pods in self._excluded_pods.unfound.items():
            names = ", ".join(sorted(str(pod.key) for pod in pods))
            message = f"no cgroup was found for {names}; until one is found, calls from there are redirected as well"
            in_force = self._policies.in_force(policy_id)
            faults += [WriteFault(key=policy.key, failed=False, message=message) for policy in in_force]
        return tuple(faults)

    def _report(self, apply_seconds: float | None) -> None:
        self._reported = self._faults()
        report = DesiredStateApplied(
            faults=self._reported, attached=self._attached, apply_seconds=apply_seconds, lease_withheld=self._withheld
        )
        for reporter in REPORTERS:
            self.send(reporter, report)
        if self._tables.take_backends_removed():
            self.send("AffinityAger", BackendsRemoved())
