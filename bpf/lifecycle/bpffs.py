"""Prepares the directory for our pins: makes it on a bpffs, or refuses it if others use it as well.

Other programs keep their pins on the same file system. So the agent insists on a directory of its own, and removes only
what has the form of its own pins (bpf/lifecycle/pins.py).
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from bpf.errors import DatapathError
from bpf.lifecycle import pins
from bpf.mounts import file_system, mount_of

_BPF_FS = Path("/sys/fs/bpf")
_NAMED_AT_MOST = 5


def prepare_directory(directory: Path) -> None:
    """Makes the directory, and first mounts a bpffs at /sys/fs/bpf if the directory is below it and none is there.

    Raises DatapathError when that fails, or when the directory is not only ours.
    """
    try:
        # Mount first. Without a bpffs, /sys/fs/bpf is a part of sysfs, where nobody can make a directory.
        if _BPF_FS in directory.parents:
            mount_bpffs()
        # Check the file system before making anything. The kubelet makes a hostPath on whatever is there when no bpffs
        # is mounted, and the agent must not fill a directory of the node's disk.
        existing = next(path for path in (directory, *directory.parents) if path.exists())
        kind = file_system(existing)
        if kind != pins.BPFFS_TYPE:
            msg = (
                f"datapath.bpffs: {directory} is not on a bpffs, but on {kind or 'an unknown file system'}; allowed: a "
                f"directory on a mounted bpffs. Mount one on the node (mount -t bpf bpf {_BPF_FS}) and start this "
                "agent again"
            )
            raise DatapathError(msg)
        directory.mkdir(parents=True, exist_ok=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
        msg = f"datapath.bpffs: {directory} cannot be made: {why}; allowed: a directory on a mounted bpffs"
        raise DatapathError(msg) from error
    _refuse_shared(directory)


def _refuse_shared(directory: Path) -> None:
    mount = mount_of(directory)
    if mount and mount.root == "/" and mount.point == directory.resolve():
        msg = (
            f"datapath.bpffs: {directory} is the root of a bpffs, which all programs share; allowed: a directory of "
            f"the agent's own below it, such as {directory / 'balancing'}"
        )
        raise DatapathError(msg)
    foreign = pins.foreign(directory)
    if foreign:
        more = f" and {len(foreign) - _NAMED_AT_MOST} more" if len(foreign) > _NAMED_AT_MOST else ""
        msg = (
            f"datapath.bpffs: {directory} holds files that are not this agent's: "
            f"{', '.join(foreign[:_NAMED_AT_MOST])}{more}; nothing was changed. "
            f"Allowed: a directory of the agent's own, such as {directory / 'balancing'}. "
            "Or remove these files if nobody needs them"
        )
        raise DatapathError(msg)


def mount_bpffs() -> None:
    """Mounts a bpffs at /sys/fs/bpf if none is there, which needs CAP_SYS_ADMIN. Raises CalledProcessError."""
    if file_system(_BPF_FS) != pins.BPFFS_TYPE:
        subprocess.run(["mount", "-t", "bpf", "bpf", str(_BPF_FS)], check=True, capture_output=True, text=True)
