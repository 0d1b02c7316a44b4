"""The directory on a bpffs in which everything of ours is pinned: making it, and telling ours from what is not.

Others keep their pins on the same file system. So a directory of our own it must be, and only what has the form of ours
is ever looked at or removed:
    BUILD/maps/NAME, BUILD/programs/HOOK, BUILD/layout-DIGEST, and `loading`, which becomes a BUILD
    links/HOOK, links/HOOK-former...
    sockets-DIGEST, the state of sockets, which builds share
"""

from __future__ import annotations

import errno
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bpf.errors import DatapathError
from bpf.mounts import mount_of

LINKS = "links"
LOADING = "loading"
LAYOUT = "layout-"
SOCKETS = "sockets-"
_PINS_OF_A_BUILD = ("maps", "programs")
_DIGEST = "[0-9a-f]{12}"
_BUILD = re.compile(f"{_DIGEST}(-[0-9]+){{3}}")
"""As bpf.build.build_name makes it."""
_LAYOUT = re.compile(f"{LAYOUT}{_DIGEST}")
_SOCKETS = re.compile(f"{SOCKETS}{_DIGEST}")
_LINK = re.compile(r"[a-z_]+[46]?(-former(-.*)?)?")
"""Of other versions too, which may have other hooks."""
_BPF_FS = Path("/sys/fs/bpf")
_BPF_FS_TYPE = "bpf"
_MOST_NAMES = 5
_KEPT = (errno.ENOTEMPTY, errno.EBUSY, errno.EROFS)
"""Why a directory can't be removed that stays: others have something in it, or it is a mount point."""


def prepare_directory(directory: Path) -> None:
    """Makes it; mounts a bpffs at /sys/fs/bpf when that is where it belongs and none is there. Raises DatapathError."""
    try:
        # First: what is below is sysfs otherwise, which lets nobody make a directory.
        if _BPF_FS in directory.parents:
            mount_bpffs()
        # Before anything is made: the kubelet makes the directory on whatever is there when no bpffs is mounted.
        existing = next(path for path in (directory, *directory.parents) if path.exists())
        kind = file_system(existing)
        if kind != _BPF_FS_TYPE:
            msg = (
                f"datapath.bpffs: {directory} is not on a bpffs, but on {kind or 'an unknown file system'}; allowed: a "
                f"directory on a mounted bpffs. Mount one on the node (mount -t bpf bpf {_BPF_FS}) and start this "
                "agent again"
            )
            raise DatapathError(msg)
        directory.mkdir(parents=True, exist_ok=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
        msg = f"datapath.bpffs: {directory} can't be made: {why}; allowed: a directory on a mounted bpffs"
        raise DatapathError(msg) from error
    _refuse_shared(directory)


def _refuse_shared(directory: Path) -> None:
    mount = mount_of(directory)
    if mount and mount.root == "/" and mount.point == directory.resolve():
        msg = (
            f"datapath.bpffs: {directory} is the root of a bpffs, which belongs to everybody; allowed: a directory of "
            f"the agent's own below it, such as {directory / 'balancing'}"
        )
        raise DatapathError(msg)
    others = foreign(directory)
    if others:
        more = f" and {len(others) - _MOST_NAMES} more" if len(others) > _MOST_NAMES else ""
        msg = (
            f"datapath.bpffs: {directory} holds what is not this agent's: {', '.join(others[:_MOST_NAMES])}{more}; "
            f"nothing was changed. Allowed: a directory of the agent's own, such as {directory / 'balancing'}, "
            "or remove these when nobody needs them"
        )
        raise DatapathError(msg)


def mount_bpffs() -> None:
    """At /sys/fs/bpf, when none is there; needs CAP_SYS_ADMIN then. Raises CalledProcessError."""
    if file_system(_BPF_FS) != _BPF_FS_TYPE:
        subprocess.run(["mount", "-t", "bpf", "bpf", str(_BPF_FS)], check=True, capture_output=True, text=True)


def file_system(path: Path) -> str:
    """Type of the file system that `path` is on."""
    mount = mount_of(path)
    return mount.kind if mount else ""


def holds_pins(directory: Path) -> bool:
    """Whether there may be any of ours; elsewhere `loading` and the like are somebody's ordinary directories."""
    return directory.is_dir() and file_system(directory) == _BPF_FS_TYPE


def is_pin(path: Path) -> bool:
    """Not a directory, and no symbolic link to what may be anybody's."""
    return path.is_file() and not path.is_symlink()


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def builds(bpffs: Path) -> list[str]:
    """Names of the builds that are pinned."""
    if not holds_pins(bpffs):
        return []
    return sorted(entry.name for entry in bpffs.iterdir() if _BUILD.fullmatch(entry.name) and _is_directory(entry))


def foreign(bpffs: Path) -> list[str]:
    """What is in the directory and not of our own form, by paths below it."""
    return sorted(str(path.relative_to(bpffs)) for path in _foreign(bpffs)) if holds_pins(bpffs) else []


def _foreign(bpffs: Path) -> Iterator[Path]:
    for entry in bpffs.iterdir():
        if _is_directory(entry) and (entry.name == LOADING or _BUILD.fullmatch(entry.name)):
            yield from _foreign_in_build(entry)
        elif _is_directory(entry) and entry.name == LINKS:
            yield from (path for path in entry.iterdir() if not (is_pin(path) and _LINK.fullmatch(path.name)))
        elif _is_directory(entry) and _SOCKETS.fullmatch(entry.name):
            yield from (path for path in entry.iterdir() if not is_pin(path))
        elif not (is_pin(entry) and _SOCKETS.fullmatch(entry.name)):
            yield entry


def _foreign_in_build(build: Path) -> Iterator[Path]:
    for entry in build.iterdir():
        if _is_directory(entry) and entry.name in _PINS_OF_A_BUILD:
            yield from (path for path in entry.iterdir() if not is_pin(path))
        elif not (_is_directory(entry) and _LAYOUT.fullmatch(entry.name)):
            yield entry


def remove_build(build: Path) -> list[Path]:
    """Its pins, and the directories when they are empty then; those pins that it removed."""
    if not _is_directory(build):
        return []
    removed = []
    for directory in (build / name for name in _PINS_OF_A_BUILD):
        removed += _remove_pins(directory)
    for layout in build.iterdir():
        if _LAYOUT.fullmatch(layout.name):
            _remove_empty(layout)
    _remove_empty(build)
    return removed


def remove_sockets(bpffs: Path) -> list[Path]:
    """The state of sockets; those pins that it removed."""
    removed = []
    for entry in sorted(bpffs.iterdir()):
        if _SOCKETS.fullmatch(entry.name):
            if is_pin(entry):
                entry.unlink()
                removed.append(entry)
            removed += _remove_pins(entry)
    return removed


def remove_directory(bpffs: Path) -> None:
    """When nothing is left in it. In a container, where it is a mount of its own, it stays."""
    _remove_empty(bpffs / LINKS)
    _remove_empty(bpffs)


def _remove_pins(directory: Path) -> list[Path]:
    if not _is_directory(directory):
        return []
    removed = sorted(filter(is_pin, directory.iterdir()))
    for pin in removed:
        pin.unlink()
    _remove_empty(directory)
    return removed


def _remove_empty(directory: Path) -> None:
    if not _is_directory(directory):
        return
    try:
        directory.rmdir()
    except OSError as error:
        if error.errno not in _KEPT:
            raise
