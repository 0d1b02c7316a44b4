"""Follows the decisions of the attached build, and those of the next one after an upgrade."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bpf.errors import DatapathError
from bpf.lifecycle.attachments import active_build
from bpf.lifecycle.opened_maps import opened_maps
from bpf.maps.pinned_maps import PinnedMaps
from bpf.maps.rows import Decision
from bpf.monitoring.clients import Clients
from bpf.monitoring.named_decision import NamedDecision, rfc3339
from bpf.monitoring.shared_rows import SharedRows

_ROUND_SECONDS = 0.1
"""Between two readings. In that time the programs record less than there is room for."""
_ROUNDS_OF_A_BUILD = 10
"""How many readings there are between two checks whether the build was replaced."""


def follow(
    bpffs: Path,
    clients: Clients,
    wait: Callable[[float], bool],
    is_wanted: Callable[[Decision], bool] = lambda _: True,
) -> Iterator[NamedDecision | int]:
    """Decisions as they happen. A number in place of one says how many were lost since the last one.

    `wait` waits for that many seconds, and returns whether to end. Names are looked up only for decisions that
    `is_wanted` chooses. Raises DatapathError when nothing is installed.
    """
    while True:
        build = active_build(bpffs)
        with opened_maps(bpffs) as maps:
            if build is None or maps is None:
                msg = f"nothing of ours is installed under {bpffs}, so nothing is decided; start the agent"
                raise DatapathError(msg)
            watched = _Build(maps, clients, is_wanted)
            try:
                yield from watched.decisions()
                while active_build(bpffs) == build:
                    for _ in range(_ROUNDS_OF_A_BUILD):
                        ended = wait(_ROUND_SECONDS)
                        yield from watched.decisions()
                        if ended:
                            return
            finally:
                watched.close()


class _Build:
    """Watches one build, whose maps the caller closes."""

    def __init__(self, maps: PinnedMaps, clients: Clients, is_wanted: Callable[[Decision], bool]) -> None:
        self._maps = maps
        self._rows = SharedRows(maps["watch"].path.parent)
        self._clients = clients
        self._is_wanted = is_wanted
        self._host_netns = 0

    def close(self) -> None:
        self._rows.close()

    def decisions(self) -> Iterator[NamedDecision | int]:
        self._rows.renew(time.monotonic_ns())
        found, lost = self._rows.read()
        for each in found:
            if self._is_wanted(each):
                yield self._named(each)
        if lost:
            yield lost

    def _named(self, decision: Decision) -> NamedDecision:
        age_ns = time.monotonic_ns() - decision.time_ns
        return NamedDecision(
            time=rfc3339((time.time_ns() - age_ns) / 1e9),
            hook=decision.hook,
            client=self._clients.name(decision.cgroup_id, is_host=self._is_host(decision)),
            client_netns=decision.client_netns,
            cgroup=self._clients.directory(decision.cgroup_id),
            pid=decision.pid,
            command=self._clients.command(decision.pid),
            frontend=decision.frontend,
            policy=self._policy(decision.policy_id),
            reason=decision.reason,
            backend=decision.target if decision.reason is None else None,
        )

    def _is_host(self, decision: Decision) -> bool:
        # A watcher may follow a new build before MapWriter has written the `config` row.
        self._host_netns = self._host_netns or self._maps.config().host_netns
        return decision.client_netns == self._host_netns

    def _policy(self, policy_id: int) -> str:
        """Read each time, since another policy may be given the same id (the annotation serviceId)."""
        row = self._maps.policy(policy_id)
        return row.name if row else ""
