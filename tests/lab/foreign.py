"""Stands for a CNI's socket load balancer: programs on a cgroup that translate one virtual IP to another address.

python -m tests.lab.foreign CGROUP FROM TO [FLAGS]      (IPv4; FLAGS of the attach, such as 8: BPF_F_BEFORE)

attaches a program for connect4 and one for sendmsg4, and prints their ids. When its standard input is closed, it
detaches them and ends.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from bpf import libbpf
from bpf.build import HOOKS
from bpf.inspecting.trial import translation


def attach(cgroup: Path, instructions: bytes, hook: str, flags: int) -> tuple[int, int]:
    """Id of the program, and the descriptor of the link that keeps it attached."""
    program = libbpf.load_program("translate", instructions, libbpf.PROG_TYPE_SOCK_ADDR, HOOKS[hook])
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return libbpf.program_id(program), libbpf.link_create(program, directory, HOOKS[hook], flags)
    finally:
        os.close(directory)
        os.close(program)


def can_come_first(cgroup: Path) -> bool:
    """Whether this kernel takes BPF_F_BEFORE for a cgroup. It is tried, since distributions backport the flag to older
    versions. A kernel that doesn't know the flag answers EINVAL; any other error is raised."""
    try:
        _, link = attach(cgroup, translation("192.0.2.1", "192.0.2.1"), "connect4", libbpf.BPF_F_BEFORE)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    os.close(link)
    return True


def main(cgroup: str, address: str, translated: str, flags: str = "0") -> None:
    instructions = translation(address, translated)
    held = [attach(Path(cgroup), instructions, hook, int(flags)) for hook in ("connect4", "sendmsg4")]
    print(*(identifier for identifier, _ in held), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
