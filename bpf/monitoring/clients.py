"""Names for those who call: the Pod by its cgroup, or the host by its network namespace; and the process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bpf.cgroups.hierarchy import Directory, descendants
from bpf.cgroups.pod_cgroups import pod_uid
from bpf.monitoring.named_decision import HOST
from config.domain.ids import NamespacedName

_PAUSE_SECONDS = 1.0
"""Between two readings of the cgroup tree, or of the node's Pods."""
_ROOT_PID_NAMESPACE = 0xEFFFFFFC
"""PROC_PID_INIT_INO of the kernel's include/linux/proc_ns.h."""


class Clients:
    """`root` is the top of the cgroups. `pods` returns the node's Pods, uid or config hash -> name. Both are read again
    when somebody unknown calls."""

    def __init__(self, root: Path, pods: Callable[[], Mapping[str, NamespacedName]]) -> None:
        self._root = root
        self._read_pods = pods
        self._pods: Mapping[str, NamespacedName] = {}
        self._directories: dict[int, Path] = {}
        """Cgroup id -> its directory."""
        self._next_walk_at = 0.0
        self._next_pods_at = 0.0
        """time.monotonic(), both."""
        self._sees_processes = Path("/proc/self/ns/pid").stat().st_ino == _ROOT_PID_NAMESPACE

    def directory(self, cgroup_id: int) -> Path | None:
        """None when the cgroup is gone or not visible."""
        if cgroup_id not in self._directories and time.monotonic() >= self._next_walk_at:
            top = Directory(0, self._root.stat().st_ino, os.fspath(self._root))
            self._directories = {each.inode: Path(each.path) for each in descendants(top)}
            self._next_walk_at = time.monotonic() + _PAUSE_SECONDS
        return self._directories.get(cgroup_id)

    def name(self, cgroup_id: int, *, is_host: bool) -> str:
        """`namespace/pod`, `host`, or "" when nobody knows. `is_host`: it calls from the node's network namespace."""
        directory = self.directory(cgroup_id)
        uids = [uid for part in reversed(directory.parts) if (uid := pod_uid(part))] if directory else []
        if uids and self._pods.keys().isdisjoint(uids) and time.monotonic() >= self._next_pods_at:
            self._pods = self._read_pods()
            self._next_pods_at = time.monotonic() + _PAUSE_SECONDS
        pod = next((self._pods[uid] for uid in uids if uid in self._pods), None)
        if pod is not None:
            return str(pod)
        return HOST if is_host else ""

    def command(self, pid: int) -> str:
        """The name of a process; "" when it has ended, or when our pid namespace is not the node's."""
        if not self._sees_processes:
            return ""
        try:
            return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
        except OSError:
            return ""
