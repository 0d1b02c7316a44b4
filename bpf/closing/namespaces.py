"""The network namespaces of the node: finding them, and running code in one of them."""

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
_CLONE_NEWNET = 0x40000000
_GONE = (errno.ENOENT, errno.ESRCH, errno.EINVAL)
"""Its file was removed, its process has ended, or nothing is mounted on its file any longer."""

_libc = ctypes.CDLL(None, use_errno=True)


def find_namespaces() -> list[Path]:
    """A path for each network namespace that can be found; the first is that of this process.

    Those of Pods stand below /run/netns. Where this process sees the node's processes (hostPID), theirs are found as
    well, as far as it has the right to look (CAP_SYS_PTRACE for those of other users).
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
        except OSError:  # it went away, or this process may not look at it
            continue
        # On another device it is an ordinary file, on which no namespace is mounted (any longer).
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
    """A network namespace went away since it was found."""


@contextmanager
def entered(namespace: Path) -> Iterator[None]:
    """Moves this thread into a network namespace and back.

    Raises NamespaceGone, and OSError: EPERM without CAP_SYS_ADMIN. A thread that cannot come back must do nothing more:
    then it raises SystemExit.
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
