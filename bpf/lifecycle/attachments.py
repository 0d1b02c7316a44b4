"""What is attached, and which other programs run before it. Reads our pins and the kernel, and changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from bpf import libbpf
from bpf.build import HOOKS
from bpf.cgroups.hierarchy import opened_cgroup
from bpf.lifecycle import pins


class Attachment(NamedTuple):
    """The state of one hook. Its program may be pinned without being attached: then `cgroup_id` is 0."""

    hook: str
    build: str
    """The build that the program belongs to; "" when that build's pins are gone."""
    program_id: int
    link_id: int = 0
    """0 when there is no link."""
    cgroup_id: int = 0
    """The cgroup that the link is on; 0 when somebody detached it, or the cgroup is gone."""

    @property
    def attached(self) -> bool:
        return self.cgroup_id != 0


def attachments(bpffs: Path) -> list[Attachment]:
    """One for each hook that has a pinned link or program."""
    if not pins.holds_pins(bpffs):
        return []
    found = []
    for hook in sorted(HOOKS):
        builds = builds_by_program(bpffs, hook)
        path = bpffs / pins.LINKS / hook
        if pins.is_pin(path):
            with libbpf.opened_pin(path) as link:
                info = libbpf.link_info(link)
            build = builds.get(info.program_id, "")
            found.append(Attachment(hook, build, info.program_id, info.link_id, info.cgroup_id))
        elif builds:
            program_id, build = next(iter(builds.items()))
            found.append(Attachment(hook, build, program_id))
    return found


def builds_by_program(bpffs: Path, hook: str) -> dict[int, str]:
    """Id of each pinned program for the hook -> the build that it belongs to."""
    builds = {}
    for build in pins.builds(bpffs):
        pin = bpffs / build / "programs" / hook
        if pins.is_pin(pin):  # another version may lack the hook
            with libbpf.opened_pin(pin) as program:
                builds[libbpf.program_id(program)] = build
    return builds


def attached_builds(bpffs: Path) -> list[str]:
    """Builds that have a program attached: one, or two while one takes over from the other."""
    return list(dict.fromkeys(each.build for each in attachments(bpffs) if each.attached and each.build))


def active_build(bpffs: Path) -> str | None:
    """A build that has a program attached; if there is none, any build that is pinned."""
    return next(iter(attached_builds(bpffs) or pins.builds(bpffs)), None)


def programs_before(bpffs: Path, cgroup: Path) -> dict[str, list[str]]:
    """Hook -> other software's programs that run before ours, and may translate an address before we see it.

    They are named by their ids. To learn a program's name one must open it by its id; that needs CAP_SYS_ADMIN, which
    the agent doesn't have.
    """
    before: dict[str, list[str]] = {}
    if not cgroup.is_dir():
        return before  # somebody removed it, and all attachments with it
    ours = {each.hook: each.program_id for each in attachments(bpffs)}
    with opened_cgroup(cgroup) as directory:
        for hook, attach_type in HOOKS.items():
            order = libbpf.effective_programs(directory, attach_type)
            earlier = order[: order.index(ours[hook])] if ours.get(hook) in order else []
            foreign = set(earlier) - _linked_programs(bpffs) if earlier else set()
            if foreign:
                before[hook] = [f"program {each}" for each in earlier if each in foreign]
    return before


def _linked_programs(bpffs: Path) -> set[int]:
    """Ids of the programs of all our links, the former ones included."""
    found = set()
    for path in (bpffs / pins.LINKS).iterdir():
        with libbpf.opened_pin(path) as link:
            found.add(libbpf.link_info(link).program_id)
    return found
