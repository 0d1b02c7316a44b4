"""Network namespaces: the cookie of our own, finding the node's, and running code in one of them."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from config.domain.addresses import Address

RUN_NETNS = Path("/run/netns")
"""Where containerd and CRI-O keep the network namespaces of Pods, each as a file that is mounted there."""
_OWN = Path("/proc/thread-self/ns/net")
_SO_NETNS_COOKIE = 71
"""include/uapi/asm-generic/socket.h, kernel 5.14."""
_CLONE_NEWNET = 0x40000000
_GONE = (errno.ENOENT, errno.ESRCH, errno.EINVAL)
"""Its file was removed, its process has ended, or nothing is mounted on its file any longer."""

_libc = ctypes.CDLL(None, use_errno=True)


def own_netns_cookie() -> int:
    """The number by which the programs know the network namespace of this thread (bpf_get_netns_cookie)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")


def find_namespaces() -> list[Path]:
    """A path for each network namespace that can be found; the first is that of this process.

    Those of Pods are below /run/netns. Where this process sees the node's processes (hostPID), it finds theirs as well,
    if it has the right to look at them (CAP_SYS_PTRACE for processes of other users).
    """
    found: dict[int, Path] = {}
    for inode, path in _others():
        found.setdefault(inode, path)
    return [_OWN, *found.values()]


def finds_others() -> bool:
    """Whether there are namespaces besides that of this process. It stops looking at the first one."""
    return next(_others(), None) is not None


def _others() -> Iterator[tuple[int, Path]]:
    """Inode and path of each namespace that is not this process's own; one may come under several paths."""
    own = _OWN.stat()
    for path in _candidates():
        try:
            status = path.stat()
        except OSError:  # it is gone, or this process may not look at it
            continue
        # On another device it is an ordinary file: no namespace is mounted on it, or none is any longer.
        if status.st_dev == own.st_dev and status.st_ino != own.st_ino:
            yield status.st_ino, path


def _candidates() -> Iterator[Path]:
    if RUN_NETNS.is_dir():
        yield from RUN_NETNS.iterdir()
    yield from (process / "ns/net" for process in Path("/proc").iterdir() if process.name.isdecimal())


def is_own_address(address: Address) -> bool:
    """Whether this process's network namespace has the address."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as tried:
            tried.bind((str(address), 0))
    except OSError:
        return False
    return True


class NamespaceGone(Exception):
    """A network namespace that was found a moment ago no longer exists."""


@contextmanager
def entered(namespace: Path) -> Iterator[None]:
    """Moves this thread into a network namespace and back.

    Raises NamespaceGone, and OSError: EPERM without CAP_SYS_ADMIN. If the thread cannot move back, it must do nothing
    more in the wrong namespace, so this raises SystemExit.
    """
    own = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(namespace)
        try:
            yield
        finally:
            try:
                _set_namespace(own)
            except OSError as error:
                raise SystemExit(f"cannot leave network namespace {namespace}: {error}") from error
    finally:
        os.close(own)


def _enter(namespace: Path) -> None:
    try:
        target = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _set_namespace(target)
        finally:
            os.close(target)
    except OSError as error:
        if error.errno in _GONE:
            raise NamespaceGone(namespace) from error
        raise


def _set_namespace(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
