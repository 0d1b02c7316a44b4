"""What is mounted where, according to /proc/self/mountinfo (proc_pid_mountinfo(5))."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple


class Mount(NamedTuple):
    number: int
    """The mount id."""
    root: str
    """The directory within the file system that is mounted. For cgroup2 it is relative to the root of our cgroup
    namespace: `/../..` shows two levels more than `/`."""
    point: Path
    kind: str


def mounts() -> list[Mount]:
    return [parse(line) for line in Path("/proc/self/mountinfo").read_bytes().splitlines()]


def parse(line: bytes) -> Mount:
    """One line of mountinfo."""
    before, _, after = line.partition(b" - ")
    fields = before.split()
    return Mount(int(fields[0]), _text(fields[3]), Path(_text(fields[4])), _text(after.split()[0]))


def _text(field: bytes) -> str:
    """Undoes the kernel's escapes: it writes spaces, tabs, newlines and backslashes as octal numbers."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field))


def mount_of(path: Path) -> Mount | None:
    """The mount that `path` is on; None when we don't see it. Raises OSError when there is no such path."""
    descriptor = os.open(path, os.O_PATH)
    try:
        lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    finally:
        os.close(descriptor)
    number = next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))
    return next((mount for mount in mounts() if mount.number == number), None)


def file_system(path: Path) -> str:
    """Type of the file system that `path` is on; "" when we don't see its mount."""
    mount = mount_of(path)
    return mount.kind if mount else ""
