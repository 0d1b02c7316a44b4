"""Containers' cgroups: finding them below a Pod's (rule P18).

A container has a directory of its own in its Pod's: `<id>` with the cgroupfs driver, `cri-containerd-<id>.scope`,
`crio-<id>.scope` or `docker-<id>.scope` with systemd's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def container_id(directory_name: str) -> str:
    """Returns the id of the container whose directory has this name. Containerd's ids may be any text, so any name may
    be a container's. The id is "" only for the directories of CRI-O's monitors (`crio-conmon-<id>.scope`), which live
    beside their containers and outlive them.
    """
    name = directory_name.removesuffix(".scope")
    return "" if name.startswith("crio-conmon-") else name.rpartition("-")[2]


def containers_below(pods_directories: Iterable[Path]) -> dict[str, Path]:
    """Container id -> its directory, of all that the Pod has now."""
    found: dict[str, Path] = {}
    for directory in pods_directories:
        try:
            with os.scandir(directory) as entries:
                found |= {container_id(each.name): Path(each.path) for each in entries if each.is_dir()}
        except OSError:  # it was removed meanwhile
            continue
    return found
