"""What can be seen of a client: its cgroup and its network namespace.

How much that is depends on where we run. In the agent's container the node's cgroups are visible, but not its
processes. On the node itself, root sees everything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from bpf.cgroups.hierarchy import Directory, ancestors, cgroup_of_process, descendants, find_cgroup, processes_in
from bpf.cgroups.pod_cgroups import PodCgroups
from bpf.explaining.call import ClientKind, ClientName, WrongUsage
from bpf.explaining.facts import Client
from bpf.netns import NamespaceGone, entered, own_netns_cookie

_OWN_NAMESPACE = Path("/proc/self/ns/net")
_NOT_VISIBLE = "its processes are not visible from here; on the node itself, root can see them"


class KnownPod(NamedTuple):
    """What the source of the agent's objects says about a Pod of this node."""

    uid: str
    config_hash: str
    host_network: bool
    runtime_class: str
    below: Path
    """The cgroup in which the agent looks for Pods (`datapath.cgroup`)."""


def find_client(name: ClientName, host_netns: int, pod: KnownPod | None = None, remark: str = "") -> Client:
    """`host_netns` is what the agent has written into the map `config`. If the client is a Pod, `pod` is what is known
    of it, or `remark` says why nothing is. Raises WrongUsage for a process or a cgroup that is not there."""
    match name.kind:
        case ClientKind.HOST:
            return Client(
                name=name.text, ancestors=(), within=frozenset(), is_host=True, netns=host_netns or None, remark=remark
            )
        case ClientKind.PROCESS:
            return _process(name, host_netns)
        case ClientKind.CGROUP:
            return _cgroup(name, host_netns)
        case ClientKind.POD:
            return _pod(name, host_netns, pod, remark)


def with_namespace(client: Client, calling: Mapping[int, int], host_netns: int) -> Client:
    """The client, with the network namespace of its recorded calls if that is not visible. `calling` is what
    `bpf.explaining.installed.calling_namespaces` returns."""
    cookies = {calling[each] for each in client.within or () if each in calling}
    if client.netns is not None or len(cookies) != 1:
        return client
    (cookie,) = cookies
    return replace(client, netns=cookie, is_host=cookie == host_netns if client.is_host is None else client.is_host)


def _process(name: ClientName, host_netns: int) -> Client:
    root = find_cgroup("auto")
    try:
        cgroup = cgroup_of_process(name.pid, root)
    except FileNotFoundError:
        where = "in the pid namespace of this command; in a container, those are the container's own processes"
        msg = f"--from: {name.text}: there is no process {name.pid} {where}"
        raise WrongUsage(msg) from None
    seen = _Namespace.of_processes([name.pid], host_netns)
    if cgroup is None:
        return Client(name=name.text, is_host=seen.is_host, netns=seen.cookie, remark=f"it is not below {root}")
    path, top_level = ancestors(cgroup)
    return Client(
        name=name.text,
        cgroup=cgroup,
        ancestors=path,
        top_level=top_level,
        within=frozenset({path[-1]}),
        places=(cgroup,),
        is_host=seen.is_host,
        netns=seen.cookie,
        remark=seen.remark,
    )


def _cgroup(name: ClientName, host_netns: int) -> Client:
    root = find_cgroup("auto")
    below = root / os.fspath(name.path).lstrip("/")
    found = next((path for path in (name.path, below) if (path / "cgroup.controllers").exists()), None)
    if found is None:
        msg = f"--from: {name.text}: is no cgroup2 directory; it must be one, or the path of one below {root}"
        raise WrongUsage(msg)
    return _of_cgroup(name.text, found, _Namespace.of_processes(_processes_below(found), host_netns))


def _pod(name: ClientName, host_netns: int, pod: KnownPod | None, remark: str) -> Client:
    if pod is None:
        return Client(name=name.text, remark=remark)
    directories = _directories(pod, pod.below) or _directories(pod, find_cgroup("auto"))
    processes = (pid for each in directories for pid in _processes_below(each))
    if pod.host_network:
        seen = _Namespace(is_host=True, cookie=host_netns or None, remark="")
    else:
        seen = _Namespace.of_processes(processes, host_netns)._replace(is_host=False)
    if not directories:
        missing = f"no cgroup of the Pod (uid {pod.uid or pod.config_hash}) was found below {find_cgroup('auto')}"
        return Client(name=name.text, is_host=seen.is_host, netns=seen.cookie, remark=missing)
    return replace(_of_cgroup(name.text, directories[-1], seen), runtime_class=pod.runtime_class)


def _directories(pod: KnownPod, below: Path) -> tuple[Path, ...]:
    pods = PodCgroups(below)
    pods.update([(pod.uid, pod.config_hash)])
    return pods.directories(pod.uid, pod.config_hash)


def _of_cgroup(name: str, cgroup: Path, seen: _Namespace) -> Client:
    path, top_level = ancestors(cgroup)
    below = list(descendants(Directory(len(path) - 1, path[-1], os.fspath(cgroup))))
    return Client(
        name=name,
        cgroup=cgroup,
        ancestors=path,
        top_level=top_level,
        within=frozenset(each.inode for each in below),
        places=tuple(place for each in below if processes_in(place := Path(each.path))),
        is_host=seen.is_host,
        netns=seen.cookie,
        remark=seen.remark,
    )


def _processes_below(cgroup: Path) -> Iterator[int]:
    for each in descendants(Directory(0, cgroup.stat().st_ino, os.fspath(cgroup))):
        yield from filter(None, processes_in(Path(each.path)))


class _Namespace(NamedTuple):
    """The network namespace of a client, as far as it can be seen."""

    is_host: bool | None
    cookie: int | None
    remark: str

    @classmethod
    def of_processes(cls, processes: Iterator[int] | list[int], host_netns: int) -> _Namespace:
        """That of the first of these processes that is visible."""
        own = own_netns_cookie()
        for pid in processes:
            path = Path(f"/proc/{pid}/ns/net")
            try:
                if path.stat().st_ino == _OWN_NAMESPACE.stat().st_ino:
                    return cls(own == host_netns, own, "")
            except OSError:  # the process has ended, or we have no right to look at it
                continue
            try:
                with entered(path):
                    cookie = own_netns_cookie()
            except (NamespaceGone, OSError):
                return cls(False if own == host_netns else None, None, _NOT_VISIBLE)
            return cls(cookie == host_netns, cookie, "")
        return cls(None, None, _NOT_VISIBLE)
