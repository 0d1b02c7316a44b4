"""Reading /proc/self/mountinfo."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpf.mounts import Mount, mount_of, mounts, parse


@pytest.mark.parametrize(
    ("line", "mount"),
    [
        (
            rb"31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate",
            Mount(31, "/", Path("/sys/fs/cgroup"), "cgroup2"),
        ),
        (
            rb"72 31 0:38 /../../.. /host/sys/fs/cgroup ro - cgroup2 none rw",
            Mount(72, "/../../..", Path("/host/sys/fs/cgroup"), "cgroup2"),
        ),
        (
            rb"73 31 0:39 /balancing /a\040place\134with/\303\244 rw - bpf bpf rw,mode=700",
            Mount(73, "/balancing", Path("/a place\\with/\u00e4"), "bpf"),
        ),
    ],
    ids=["a node's", "a container's", "odd names"],
)
def test_a_line_is_read(line: bytes, mount: Mount) -> None:
    assert parse(line) == mount


def test_the_mount_of_a_path_is_the_one_that_it_leads_to() -> None:
    found = mount_of(Path("/proc/self/status"))
    assert found in mounts()
    assert found is not None
    assert (found.kind, found.point) == ("proc", Path("/proc"))
