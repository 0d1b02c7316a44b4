"""ContainerWatcher: watches the cgroups of backend Pods' containers, to notice at once when one ends (rule P18).

In: BackendsSelected (ConflictResolver), CgroupChanged (own reader thread), TickElapsed (own clock). Out:
ContainersEnded (ConflictResolver), ResyncDesiredState (ConflictResolver) at its start.

The kubelet needs a second or more to notice that a container has ended, and then reports it through the API server.
The kernel reports it within some milliseconds, even when the API server cannot be reached.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from actors.framework.actor import AgentActor, OwnedThread, clock
from actors.framework.messages import Message, TickElapsed
from actors.messages.backends import BackendsSelected, CgroupChanged, ContainersEnded, PolicyBackends, SelectedPod
from actors.messages.resync import ResyncDesiredState
from bpf.cgroups.cgroup_events import CgroupEvents, is_populated
from bpf.cgroups.container_cgroups import containers_below
from bpf.cgroups.pod_cgroups import PodCgroups
from config.domain.ids import NamespacedName, PolicyKey

_log = logging.getLogger(__name__)

TICK_SECONDS = 2.0


@dataclass(slots=True)
class _Watched:
    pod: SelectedPod
    was_found: bool = False
    """Whether the Pod's cgroup has been found before."""
    containers: dict[str, Path] = field(default_factory=dict)
    """Id of each container that was found -> its directory."""
    searched: frozenset[str] = frozenset()
    """Containers for which the whole tree of cgroups has been searched."""
    ended: frozenset[str] = frozenset()
    """As last reported to ConflictResolver."""
    is_gone: bool = False
    """As last reported to ConflictResolver."""


class ContainerWatcher(AgentActor):
    HANDLERS: ClassVar[Mapping[type[Message], str]] = {
        BackendsSelected: "_on_backends_selected",
        CgroupChanged: "_on_cgroup_changed",
        TickElapsed: "_on_tick_elapsed",
    }

    def __init__(self, *, cgroup: Path) -> None:
        super().__init__()
        self._cgroups = PodCgroups(cgroup)
        self._events = CgroupEvents(self._deliver)
        self._policies: dict[PolicyKey, PolicyBackends] = {}
        self._selected_by: defaultdict[NamespacedName, set[PolicyKey]] = defaultdict(set)
        self._watched: dict[NamespacedName, _Watched] = {}
        self._pod_of: dict[Path, NamespacedName] = {}
        """Directory of a watched container -> its Pod."""
        self._warned = False

    def started(self) -> None:
        self.own(OwnedThread(self, "container-events", self._events.run, self._events.stop))
        self.own(clock(self, TICK_SECONDS))
        self.send("ConflictResolver", ResyncDesiredState())

    def _deliver(self, directory: Path) -> None:
        """Runs in the reader's thread."""
        self.tell_self(CgroupChanged(directory=str(directory), received_at=time.monotonic()))

    def _on_backends_selected(self, message: BackendsSelected) -> None:
        present = {each.key: each for each in message.policies}
        gone = self._policies.keys() - present.keys() if message.complete else set(message.removed)
        changed: dict[NamespacedName, SelectedPod | None] = {}
        for policy_key in [*gone, *present]:
            for former in self._policies.pop(policy_key, PolicyBackends(key=policy_key)).pods:
                self._selected_by[former.key].discard(policy_key)
                changed[former.key] = None
        for policy in present.values():
            self._policies[policy.key] = policy
            for selected in policy.pods:
                self._selected_by[selected.key].add(policy.key)
                changed[selected.key] = selected
        for key, pod in changed.items():
            if not self._selected_by[key]:
                del self._selected_by[key]
                self._forget(key)
            elif pod is not None:
                self._select(pod)
        self._look(changed.keys() & self._watched.keys(), time.monotonic(), repeat=message.complete)

    def _select(self, pod: SelectedPod) -> None:
        watched = self._watched.get(pod.key)
        if watched is None or watched.pod.uid != pod.uid:
            self._forget(pod.key)
            self._watched[pod.key] = _Watched(pod)
            return
        for identifier in watched.containers.keys() - pod.containers:
            self._unwatch(watched.containers.pop(identifier))
        watched.pod = pod

    def _forget(self, key: NamespacedName) -> None:
        watched = self._watched.pop(key, None)
        for directory in watched.containers.values() if watched else ():
            self._unwatch(directory)

    def _unwatch(self, directory: Path) -> None:
        self._events.unwatch(directory)
        self._pod_of.pop(directory, None)

    def _on_cgroup_changed(self, message: CgroupChanged) -> None:
        pod = self._pod_of.get(Path(message.directory))
        if pod is not None:
            self._look([pod], message.received_at)

    def _on_tick_elapsed(self, _message: TickElapsed) -> None:
        """Notices what no event reports: a Pod's cgroup that appears or disappears, and containers that are not
        watched."""
        self._cgroups.update((each.pod.uid, each.pod.config_hash) for each in self._watched.values())
        self._look([key for key, each in self._watched.items() if self._must_look(each)], time.monotonic())

    def _must_look(self, watched: _Watched) -> bool:
        pod = watched.pod
        is_there = self._cgroups.has(pod.uid, pod.config_hash)
        all_watched = all(self._events.is_watched(directory) for directory in watched.containers.values())
        return is_there == watched.is_gone or not all_watched or not pod.containers <= watched.containers.keys()

    def _look(self, keys: Iterable[NamespacedName], received_at: float, *, repeat: bool = False) -> None:
        """Reports what has changed for these Pods; with `repeat` also what was reported before, since ConflictResolver
        may have been restarted."""
        pods = [self._watched[key] for key in keys]
        self._cgroups.update((each.pod.uid, each.pod.config_hash) for each in pods)
        for each in pods:
            ended, is_gone = self._ended(each)
            is_reported = (each.ended, each.is_gone) == (ended, is_gone)
            if is_reported and not (repeat and (ended or is_gone)):
                continue
            each.ended, each.is_gone = ended, is_gone
            self.send(
                "ConflictResolver",
                ContainersEnded(
                    pod=each.pod.key, uid=each.pod.uid, containers=ended, is_gone=is_gone, received_at=received_at
                ),
            )

    def _ended(self, watched: _Watched) -> tuple[frozenset[str], bool]:
        """Returns the containers of the Pod that have ended, and whether its whole cgroup has been removed."""
        pod = watched.pod
        directories = self._cgroups.directories(pod.uid, pod.config_hash)
        if not directories:
            # If the cgroup was never found, it may be one that the agent cannot see (docs/rules.md, P12).
            return frozenset(), watched.was_found
        watched.was_found = True
        missing = self._find(watched, directories)
        if missing - watched.searched:
            # The kubelet may have been restarted with another cgroup driver, and given the Pod a second directory.
            self._cgroups.reread()
            watched.searched = missing
            missing = self._find(watched, self._cgroups.directories(pod.uid, pod.config_hash))
        # The Pod's status names a container once it runs. So a container without a cgroup ended before we first looked,
        # unless the runtime keeps containers elsewhere (in a virtual machine).
        ended = frozenset() if pod.has_runtime_class else missing
        return ended | {key for key, path in watched.containers.items() if not is_populated(path)}, False

    def _find(self, watched: _Watched, directories: Iterable[Path]) -> frozenset[str]:
        """Watches the containers that have a cgroup. Returns those that have none."""
        missing = watched.pod.containers - watched.containers.keys()
        found = containers_below(directories) if missing else {}
        for identifier in missing & found.keys():
            self._watch(watched.pod.key, found[identifier])
            watched.containers[identifier] = found[identifier]
        return missing - found.keys()

    def _watch(self, pod: NamespacedName, directory: Path) -> None:
        self._pod_of[directory] = pod
        try:
            self._events.watch(directory)
        except OSError as error:
            if not self._warned and directory.exists():
                self._warned = True
                _log.warning(
                    "cannot watch %s (%s), so the end of a container is noticed up to %g s late; raise "
                    "fs.inotify.max_user_watches on this node",
                    directory,
                    error,
                    TICK_SECONDS,
                )
