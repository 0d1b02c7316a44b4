"""Our pins on a bpffs: their names and layout, how to distinguish them from other programs' pins, and their removal.

Below the configured directory (`datapath.bpffs`):
    BUILD/maps/NAME, BUILD/programs/NAME   the maps and programs of one build, with the maps by which programs start
                                           themselves again (BUILD/maps/own_program_HOOK). They are made in `loading`,
                                           which is then renamed, so that a BUILD is either complete or absent
    BUILD/layout-DIGEST                    an empty directory whose name says how the build lays out its rows
    BUILD/sockets-DIGEST                   another one, for the layout of the socket storages that it uses
    sockets-DIGEST/NAME                    the socket storages, which all builds of one layout share, so that a socket
                                           keeps its backend and its way back through an upgrade
    links/HOOK                             the attachments. They outlive the agent, and an upgrade swaps their program
    links/HOOK-former-LAYOUT-CGROUP        the former attachment of a way-back hook, for sockets that were redirected by
                                           a build of another layout or on another cgroup. It is kept, since such
                                           sockets may live for long
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from pathlib import Path

from bpf.mounts import file_system

LINKS = "links"
LOADING = "loading"
LAYOUT = "layout-"
SOCKETS = "sockets-"
BPFFS_TYPE = "bpf"
_FOLDERS_OF_A_BUILD = ("maps", "programs")
_DIGEST = "[0-9a-f]{12}"
_BUILD = re.compile(f"{_DIGEST}(-[0-9]+){{3}}")
"""As bpf.build.build_name makes it."""
_MARK = re.compile(f"({LAYOUT}|{SOCKETS}){_DIGEST}")
_SOCKETS = re.compile(f"{SOCKETS}{_DIGEST}")
_LINK = re.compile(r"[a-z_]+[46]?(-former(-.*)?)?")
"""Matches links of other versions as well, which may use other hooks."""
_STAYS = (errno.ENOTEMPTY, errno.EBUSY, errno.EROFS)
"""Errors for which a directory stays: it holds other programs' pins, or it is a mount point."""


def holds_pins(directory: Path) -> bool:
    """Whether the directory exists and is on a bpffs. Elsewhere, `loading` may be anybody's ordinary directory."""
    return directory.is_dir() and file_system(directory) == BPFFS_TYPE


def is_pin(path: Path) -> bool:
    """Whether the path is a pin, and neither a directory nor a symbolic link, which may lead anywhere."""
    return path.is_file() and not path.is_symlink()


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def builds(bpffs: Path) -> list[str]:
    """Names of the builds that are pinned."""
    if not holds_pins(bpffs):
        return []
    return sorted(entry.name for entry in bpffs.iterdir() if _BUILD.fullmatch(entry.name) and _is_directory(entry))


def sockets_layout_of(build: Path) -> str:
    """Digest of the layout of the socket storages that a build uses; "" for a build that has its own, unpinned."""
    return next((mark.name.removeprefix(SOCKETS) for mark in build.glob(f"{SOCKETS}*")), "")


def former_link(link: Path, layout: str, cgroup_id: int) -> Path:
    """Where the link is kept once it is replaced. A name on a bpffs may not contain a dot."""
    return link.with_name(f"{link.name}-former-{layout}-{cgroup_id:x}")


def former_links(link: Path) -> list[Path]:
    """All former links of the hook. Earlier versions named them differently."""
    return sorted(link.parent.glob(f"{link.name}-former*"))


def foreign(bpffs: Path) -> list[str]:
    """What is in the directory and does not look like ours, as paths relative to it."""
    return sorted(str(path.relative_to(bpffs)) for path in _foreign(bpffs)) if holds_pins(bpffs) else []


def _foreign(bpffs: Path) -> Iterator[Path]:
    for entry in bpffs.iterdir():
        if _is_directory(entry) and (entry.name == LOADING or _BUILD.fullmatch(entry.name)):
            yield from _foreign_in_build(entry)
        elif _is_directory(entry) and entry.name == LINKS:
            yield from (path for path in entry.iterdir() if not (is_pin(path) and _LINK.fullmatch(path.name)))
        elif _is_directory(entry) and _SOCKETS.fullmatch(entry.name):
            yield from (path for path in entry.iterdir() if not is_pin(path))
        else:
            yield entry


def _foreign_in_build(build: Path) -> Iterator[Path]:
    for entry in build.iterdir():
        if _is_directory(entry) and entry.name in _FOLDERS_OF_A_BUILD:
            yield from (path for path in entry.iterdir() if not is_pin(path))
        elif not (_is_directory(entry) and _MARK.fullmatch(entry.name)):
            yield entry


def remove_build(build: Path) -> list[Path]:
    """Removes a build's pins, and its directories where nothing else is in them. Returns the removed pins."""
    if not _is_directory(build):
        return []
    removed = []
    for directory in (build / name for name in _FOLDERS_OF_A_BUILD):
        removed += _remove_pins(directory)
    for mark in build.iterdir():
        if _MARK.fullmatch(mark.name):
            _remove_if_empty(mark)
    _remove_if_empty(build)
    return removed


def remove_sockets(bpffs: Path) -> list[Path]:
    """Removes the pins of all socket storages. Returns the removed pins."""
    removed = []
    for entry in sorted(bpffs.iterdir()):
        if _SOCKETS.fullmatch(entry.name):
            removed += _remove_pins(entry)
    return removed


def remove_directory(bpffs: Path) -> None:
    """Removes the directory if nothing is left in it. In a container it is a mount point, and stays."""
    _remove_if_empty(bpffs / LINKS)
    _remove_if_empty(bpffs)


def _remove_pins(directory: Path) -> list[Path]:
    if not _is_directory(directory):
        return []
    removed = sorted(filter(is_pin, directory.iterdir()))
    for pin in removed:
        pin.unlink()
    _remove_if_empty(directory)
    return removed


def _remove_if_empty(directory: Path) -> None:
    if not _is_directory(directory):
        return
    try:
        directory.rmdir()
    except OSError as error:
        if error.errno not in _STAYS:
            raise
