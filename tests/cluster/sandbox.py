"""A sandbox holds the processes of a test bed: a cgroup, a scratch folder and, for a node, namespaces of its own.

- Everything runs below `<cgroup2>/lrc-<pid>-<n>`: the daemons in `system`, a test's host processes in `host`, the Pods
  in `kubepods`. One write to its `cgroup.kill` ends all of them, including containers and their shims.
- A node has a network namespace of the same name, which contains kube-proxy's tables, the bridge and the routes.
- It also has a mount namespace with its own /run, /var, /sys/fs/bpf and a few files of /proc/sys. So containerd and the
  kubelet can use their usual paths on every node, and all mounts and pins disappear with its last process.
- It may have a cgroup namespace, too. Then it sees its own part of each hierarchy, mounted at the usual place, and
  nothing of other nodes.
- A watchdog process removes all of it when this process closes the sandbox or dies.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster import leftovers
from tests.cluster.binaries import ROOT
from tests.cluster.processes import run

CLONE_NEWNET = 0x40000000
KEPT = ("containerd", "kubelet")
"""Folders of a node in /var/lib. They are no part of its overlay, since containerd makes overlays in them."""

# The kubelet sets these for the whole machine unless they have these values. So a node has files with these values in
# their place.
KUBELET_SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


class Sandbox:
    """Whoever calls `open` must call `close`, even after a failed `open`."""

    _numbers = itertools.count(1)

    def __init__(self, *, namespaces: bool, own_cgroups: bool = False) -> None:
        """`own_cgroups` adds a cgroup namespace to the other ones."""
        self.id = f"{leftovers.PREFIX}{os.getpid()}-{next(self._numbers)}"
        self.folder = leftovers.folder_of(self.id)
        self.cgroup = leftovers.hierarchies()[0] / self.id
        self.netns = self.id if namespaces else ""
        self.own_cgroups = own_cgroups
        self._holder: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._children: list[subprocess.Popen[Any]] = []

    def open(self) -> None:
        leftovers.sweep()
        self.folder.mkdir(mode=0o755)
        (self.folder / "owner").write_text(leftovers.owner_mark(os.getpid()))
        # It has a session of its own, so that Ctrl-C reaches only the owner, which then closes the sandbox.
        self._watchdog = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.watchdog", self.id],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        for name in ("var", "work", "sysctl", *KEPT) if self.netns else ():
            (self.folder / name).mkdir()
        self.boot()

    def boot(self) -> None:
        """Makes cgroups and namespaces. `open` does it, and so may whoever called `halt`."""
        for name in ("system", "host"):
            (self.cgroup / name).mkdir(parents=True)
        if self.netns:
            self._make_cgroups()
            run("ip", "netns", "add", self.netns)
            run("ip", "-n", self.netns, "link", "set", "lo", "up")
            self._open_mounts()

    def halt(self) -> None:
        """Ends every process and the network at once, as when a machine loses its power. The files stay."""
        leftovers.stop(self.id)
        self._reap()

    def _make_cgroups(self) -> None:
        """Makes the node's root cgroup in the hierarchies of v1, too."""
        for hierarchy in leftovers.hierarchies()[1:]:
            cgroup = hierarchy / self.id
            cgroup.mkdir()
            for name in ("cpuset.cpus", "cpuset.mems"):  # a new cgroup of v1 has none, and no process can run in it
                if hierarchy.name == "cpuset":
                    (cgroup / name).write_text((hierarchy / name).read_text())

    def _open_mounts(self) -> None:
        script = ["mount -t tmpfs -o mode=755 tmpfs /run"]
        if self.own_cgroups:
            script += self._cgroup_mounts()
        script += [
            "mount --make-rshared /",  # the kubelet shares its mounts with containers
            f"mount -t overlay -o lowerdir=/var,upperdir={self.folder}/var,workdir={self.folder}/work overlay /var",
            "mount -t bpf bpf /sys/fs/bpf",
        ]
        for number, (name, value) in enumerate(KUBELET_SYSCTLS.items()):
            file = self.folder / "sysctl" / str(number)
            file.write_text(f"{value}\n")
            script.append(f"mount --bind {file} /proc/sys/{name}")
        for name in KEPT:
            script.append(f"mkdir -p /var/lib/{name}; mount --bind {self.folder / name} /var/lib/{name}")
        script.append("echo ready; exec sleep infinity")
        kinds = ["--mount", "--propagation", "private", *(["--cgroup"] if self.own_cgroups else [])]
        command = ["unshare", *kinds, "sh", "-ec", "\n".join(script)]
        with (self.folder / "mounts.log").open("wb") as log:
            # The cgroup that it is in becomes the root of its cgroup namespace.
            where = "" if self.own_cgroups else "system"
            self._holder = self._popen(command, where, stdout=subprocess.PIPE, stderr=log)
        assert self._holder.stdout
        if self._holder.stdout.readline() != b"ready\n":
            msg = f"the node's mounts cannot be made: {(self.folder / 'mounts.log').read_text()}"
            raise RuntimeError(msg)

    def _cgroup_mounts(self) -> list[str]:
        """Commands that mount the node's own part of each hierarchy in place of the whole."""
        top, stage = Path("/sys/fs/cgroup"), Path("/run/cgroups")
        unified, *others = leftovers.hierarchies()
        script = [f"echo $$ >{self.cgroup}/system/cgroup.procs", f"mkdir {stage}"]
        if unified == top:
            script.append(f"mount --bind {self.cgroup} {stage}")
        else:
            script.append(f"mount -t tmpfs -o mode=755 tmpfs {stage}")
            for hierarchy in (unified, *others):
                place = stage / hierarchy.relative_to(top)
                script.append(f"mkdir -p {place}; mount --bind {hierarchy / self.id} {place}")
        return [*script, f"umount -R -l {top}", f"mount --move {stage} {top}"]

    def enter(self, *, mounts: bool = True) -> list[str]:
        """The words before a command that run it in the namespaces, if there are any. The working directory stays."""
        if not self.netns:
            return []
        command = ["nsenter", f"--net={leftovers.NETNS / self.netns}"]
        if mounts:
            assert self._holder
            command += [f"--mount=/proc/{self._holder.pid}/ns/mnt", f"--wd={Path.cwd()}"]
            if self.own_cgroups:
                command.append(f"--cgroup=/proc/{self._holder.pid}/ns/cgroup")
        return command

    def path(self, inside: str) -> Path:
        """Translates a path of the node's mount namespace for use from outside."""
        assert self._holder
        return Path(f"/proc/{self._holder.pid}/root") / inside.lstrip("/")

    def spawn(self, argv: Sequence[str | Path], *, cgroup: str = "system", **popen: Any) -> subprocess.Popen[Any]:
        """Starts a process in the namespaces and in one of our cgroups. The id of the process is the program's own."""
        return self._popen([*self.enter(), *map(str, argv)], cgroup, **popen)

    def _popen(self, command: Sequence[str], cgroup: str, **popen: Any) -> subprocess.Popen[Any]:
        popen = {"stdin": subprocess.DEVNULL, "start_new_session": True, **popen}
        script = 'for each in $0; do echo $$ >"$each"; done; exec "$@"'
        where = [self.cgroup / cgroup]
        if self.own_cgroups:  # its cgroups of v1 belong to the cgroup namespace as well
            where += [hierarchy / self.id for hierarchy in leftovers.hierarchies()[1:]]
        joined = " ".join(str(each / "cgroup.procs") for each in where)
        child = subprocess.Popen(["sh", "-ec", script, joined, *command], **popen)
        self._children.append(child)
        return child

    def daemon(self, name: str, *argv: str | Path) -> subprocess.Popen[bytes]:
        """Starts a process of the cluster itself, which appends its output to `<name>.log` in the folder."""
        with (self.folder / f"{name}.log").open("ab") as log:
            return self.spawn(argv, stdout=log, stderr=log)

    def logs(self, *names: str, lines: int = 15) -> str:
        """The last lines of the named daemons' logs, or of all when none is named."""
        paths = sorted(path for path in self.folder.glob("*.log") if not names or path.stem in names)
        return "\n".join(
            f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) for path in paths
        )

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Within it, sockets that this thread opens belong to the node's network namespace."""
        if not self.netns:
            yield
            return
        with Path("/proc/thread-self/ns/net").open("rb") as before, (leftovers.NETNS / self.netns).open("rb") as there:
            _set_netns(there.fileno())
            try:
                yield
            finally:
                _set_netns(before.fileno())

    def close(self) -> None:
        """Removes everything, and returns when that is done. May be called again."""
        if not self._watchdog:
            return
        former = _ignore_signals()
        try:
            assert self._watchdog.stdin
            self._watchdog.stdin.close()
            self._watchdog.wait()
            leftovers.remove(self.id)  # does nothing, unless the watchdog was killed
            self._reap()
            self._watchdog = None
        finally:
            for each, handler in former.items():
                signal.signal(each, handler)

    def _reap(self) -> None:
        for child in self._children:
            child.wait()
            for stream in (child.stdin, child.stdout, child.stderr):
                if stream:
                    stream.close()
        self._children.clear()


def _ignore_signals() -> dict[signal.Signals, Any]:
    """Ignores signals, since a removal must not be interrupted. Returns the former handlers. Only the main thread can
    set handlers; in another one nothing changes, and there are none to return."""
    try:
        return {each: signal.signal(each, signal.SIG_IGN) for each in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:
        return {}


def _set_netns(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
