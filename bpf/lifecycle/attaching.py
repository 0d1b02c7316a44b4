"""Attaching a build's programs to the cgroup, or swapping them in where another build's programs are attached.

No call goes unhandled meanwhile. A link that is on the right cgroup gets the new program in place, and any other link
stays until the new one is attached.

The way back (recvmsg, getpeername) needs more. Only a program of the same layout of socket storages knows the sockets
that were redirected before, and only one on the same cgroup sees their calls. So a way-back link of another layout, or
on another cgroup, is kept beside the new one, as a former link.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import NamedTuple

from bpf import libbpf
from bpf.build import HOOKS, WAY_BACK, sockets_layout
from bpf.cgroups.hierarchy import opened_cgroup
from bpf.lifecycle import pins
from bpf.lifecycle.attachments import builds_by_program

_log = logging.getLogger(__name__)


class HeldLink(NamedTuple):
    """A link that this process keeps open, to see later whether it is still attached and has our program."""

    descriptor: int
    program_id: int

    def holds(self) -> bool:
        """Whether the link is attached and has our program."""
        info = libbpf.link_info(self.descriptor)
        return info.cgroup_id != 0 and info.program_id == self.program_id

    def close(self) -> None:
        os.close(self.descriptor)


def attach(bpffs: Path, build: str, cgroup: Path) -> dict[str, HeldLink]:
    """Attaches the build's program at every hook. Returns the links by hook; the caller closes them."""
    (bpffs / pins.LINKS).mkdir(exist_ok=True)
    links = {}
    with opened_cgroup(cgroup) as directory:
        for hook in HOOKS:
            with libbpf.opened_pin(bpffs / build / "programs" / hook) as program:
                if _update_link(bpffs, hook, program, directory):
                    _log.info("%s: the program of build %s takes over", hook, build)
                link = libbpf.open_pin(bpffs / pins.LINKS / hook)
                links[hook] = HeldLink(link, libbpf.program_id(program))
    return links


def _update_link(bpffs: Path, hook: str, program: int, cgroup: int) -> bool:
    """Gives the hook's link this program, or makes a link. Returns whether the program replaced another one."""
    path = bpffs / pins.LINKS / hook
    cgroup_id = os.fstat(cgroup).st_ino
    if path.exists():
        with libbpf.opened_pin(path) as link:
            info = libbpf.link_info(link)
            layout = _sockets_layout_of(bpffs, hook, info.program_id)
            knows_sockets = hook not in WAY_BACK or layout == sockets_layout()
            if info.cgroup_id == cgroup_id and knows_sockets:
                if info.program_id == libbpf.program_id(program):
                    return False
                libbpf.link_update(link, program)
                return True
        # The link is on another cgroup, or its program knows sockets that ours does not. Attach ours before dropping
        # this link, so that calls are never unhandled. A way-back link stays even then.
        path.rename(pins.former_link(path, layout, info.cgroup_id))
    new = _create_link(program, cgroup, HOOKS[hook])
    try:
        libbpf.pin(new, path)
    finally:
        os.close(new)
    _drop_former_links(path, cgroup_id)
    return False


def _create_link(program: int, cgroup: int, attach_type: int) -> int:
    """Attaches the program before all others on the cgroup, if the kernel supports that: otherwise a CNI's socket load
    balancer would translate a virtual IP before we see it."""
    try:
        return libbpf.link_create(program, cgroup, attach_type, libbpf.BPF_F_BEFORE)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return libbpf.link_create(program, cgroup, attach_type, 0)


def _drop_former_links(link: Path, cgroup_id: int) -> None:
    """Removes the hook's former links, except those that sockets still need. These are links of a way-back hook with
    another layout or on another cgroup, as long as that cgroup exists."""
    replaced = pins.former_link(link, sockets_layout(), cgroup_id)
    for path in pins.former_links(link):
        with libbpf.opened_pin(path) as former:
            cgroup_is_gone = libbpf.link_info(former).cgroup_id == 0
        if cgroup_is_gone or path == replaced or link.name not in WAY_BACK:
            path.unlink()


def _sockets_layout_of(bpffs: Path, hook: str, program_id: int) -> str:
    """Layout of the socket storages that a program uses. A build that names none does not share its storages; then we
    return the program's id, which equals no other layout."""
    build = builds_by_program(bpffs, hook).get(program_id)
    return (pins.sockets_layout_of(bpffs / build) if build else "") or str(program_id)
