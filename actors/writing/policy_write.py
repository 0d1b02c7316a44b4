"""The rows that a policy needs in the kernel maps. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from actors.messages.desired import DesiredFrontend, DesiredPolicy
from actors.writing.room import Room
from bpf.maps.rows import FrontendFlag, FrontendRow, PolicyRow, uid_digest
from config.domain.addresses import Frontend


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyWrite:
    """What one policy needs: what is desired, with the cgroups of its excluded Pods."""

    policy: DesiredPolicy
    cgroups: frozenset[int] = frozenset()
    levels: tuple[int, int] = (1, 0)
    """First and last level of the cgroup tree at which these cgroups are. The first is greater when there are none."""
    bits: int = 0
    """`bpf.maps.hashes.cgroup_bits` of these cgroups."""

    @property
    def need(self) -> Room:
        frontends = self.policy.frontends
        backends = sum(len(each.backends) for each in frontends)
        return Room(1, len(frontends), backends, len(self.cgroups))

    @property
    def policy_row(self) -> PolicyRow:
        return policy_row(self.policy)

    def row(
        self, frontend: Frontend, *, generation: int, first: int, count: int, backends_generation: int
    ) -> FrontendRow:
        policy = self.policy
        return FrontendRow(
            generation=generation,
            frontend=frontend,
            flags=_flags(policy),
            policy_id=policy.policy_id,
            first=first,
            count=count,
            backends_generation=backends_generation,
            limit=policy.limit,
            affinity_seconds=policy.affinity_seconds,
            skip_from=self.levels[0],
            skip_to=self.levels[1],
            percentage=policy.percentage,
            cgroup_bits=self.bits,
        )


def _flags(policy: DesiredPolicy) -> FrontendFlag:
    no_host = FrontendFlag(0) if policy.redirect_from_host else FrontendFlag.NO_HOST
    return no_host | FrontendFlag.SHADOW if policy.shadow else no_host


class FrontendChange(NamedTuple):
    """One frontend whose row is to be written, with the policy that it belongs to."""

    write: PolicyWrite
    desired: DesiredFrontend


def policy_row(policy: DesiredPolicy) -> PolicyRow:
    return PolicyRow(name=policy.key.name, limit=policy.limit, uid=uid_digest(policy.uid))
