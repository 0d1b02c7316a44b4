"""Tries a real redirect, to see that this kernel and this process's rights allow it (`run.py doctor`).

A program of six instructions, on a cgroup that nobody else is in, redirects a `connect` from a documentation address
(RFC 5737) to the loopback address. This shows that a program can be loaded and attached, and rewrites a call; the
agent's programs and maps are not touched. Where no cgroup can be made, as in the agent's container, the program is on
this process's own cgroup for a moment. Nothing is pinned, so the kernel removes all of it when this process ends, at
the latest.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bpf import libbpf
from bpf.build import HOOKS
from bpf.cgroups.hierarchy import ROOT_ID, cgroup_of_process, find_cgroup, opened_cgroup
from bpf.instructions import instruction

_FROM = "192.0.2.1"
_TO = "127.0.0.1"
_PORT = 9
_USER_IP4 = 4
"""Offset in struct bpf_sock_addr."""
_TIMEOUT_SECONDS = 30
_CONNECT = f"""
import pathlib, socket, sys
if sys.argv[1]:
    pathlib.Path(sys.argv[1], "cgroup.procs").write_text("0")
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.connect(("{_FROM}", {_PORT}))
print(client.getpeername()[0])
"""
"""Connecting a UDP socket sends nothing."""


class NotTried(Exception):
    """There is no cgroup for the program. The text says why."""


def try_redirect() -> str:
    """Returns what went wrong; "" when the call was redirected. Raises NotTried."""
    with _cgroup_of_our_own() as (cgroup, is_new):
        try:
            with _attached(cgroup):
                return _call(cgroup if is_new else None)
        except (OSError, libbpf.ProgramRefused) as error:
            return f"a program cannot be loaded or attached: {error}"


@contextmanager
def _cgroup_of_our_own() -> Iterator[tuple[Path, bool]]:
    """The directory, and whether it was made for the trial. If not, it is the one that this process is in."""
    own = cgroup_of_process(os.getpid(), find_cgroup("auto"))
    if own is None:
        raise NotTried("the cgroup of this command is not visible")
    made = own / f"localredirect-doctor-{os.getpid()}"
    try:
        made.mkdir()
    except OSError as error:
        if own.stat().st_ino == ROOT_ID:
            msg = f"this command is in the root of the cgroups, where no other one can be made: {error}"
            raise NotTried(msg) from error
        yield own, False
        return
    try:
        yield made, True
    finally:
        made.rmdir()


@contextmanager
def _attached(cgroup: Path) -> Iterator[None]:
    attach_type = HOOKS["connect4"]
    program = libbpf.load_program("doctor", translation(_FROM, _TO), libbpf.PROG_TYPE_SOCK_ADDR, attach_type)
    try:
        with opened_cgroup(cgroup) as directory:
            link = libbpf.link_create(program, directory, attach_type, 0)
    finally:
        os.close(program)
    try:
        yield
    finally:
        os.close(link)


def _call(cgroup: Path | None) -> str:
    command = [sys.executable, "-c", _CONNECT, os.fspath(cgroup or "")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_SECONDS)
    if done.returncode:
        return f"the call failed: {(done.stderr.strip().splitlines() or ['no output'])[-1]}"
    peer = done.stdout.strip()
    return "" if peer == _TO else f"a call to {_FROM} went to {peer}, and not to {_TO}"


def translation(address: str, translated: str) -> bytes:
    """The instructions of a program for connect4 and sendmsg4, in C:

    if (ctx->user_ip4 == address) ctx->user_ip4 = translated; return 1;
    """
    before, after = (int.from_bytes(socket.inet_aton(each), "little", signed=True) for each in (address, translated))
    return b"".join(
        (
            instruction(0x61, to=2, of=1, offset=_USER_IP4),  # w2 = ctx->user_ip4
            instruction(0x56, to=2, offset=2, value=before),  # unless w2 == address: skip two
            instruction(0xB4, to=2, value=after),  # w2 = translated
            instruction(0x63, to=1, of=2, offset=_USER_IP4),  # ctx->user_ip4 = w2
            instruction(0xB7, to=0, value=1),  # r0 = 1
            instruction(0x95),  # return r0
        )
    )
