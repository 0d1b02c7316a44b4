"""Pods' cgroup directories, as both of the kubelet's drivers name them (P12)."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpf.cgroups import PodCgroups, pod_uid

UID = "6f9b0c1e-1111-2222-3333-444455556666"


@pytest.mark.parametrize(
    ("name", "uid"),
    [
        (f"pod{UID}", UID),
        (f"kubepods-besteffort-pod{UID.replace('-', '_')}.slice", UID),
        (f"kubepods-pod{UID.replace('-', '_')}.slice", UID),
        ("kubepods.slice", None),
        ("kubepods", None),
        ("besteffort", None),
        ("system.slice", None),
        ("cri-containerd-0123.scope", None),
    ],
)
def test_the_uid_is_read_from_the_directory_name(name: str, uid: str | None) -> None:
    assert pod_uid(name) == uid


def test_a_static_pods_directory_is_found_by_its_config_hash(tmp_path: Path) -> None:
    directory = tmp_path / "kubepods" / "burstable" / "pod0123abcd"
    directory.mkdir(parents=True)
    cgroups = PodCgroups(tmp_path)
    cgroups.refresh()
    found = cgroups.find(UID, "0123abcd")
    assert found is not None
    assert found.cgroup_id == directory.stat().st_ino


def test_a_directory_that_went_is_not_found(tmp_path: Path) -> None:
    directory = tmp_path / "kubepods" / f"pod{UID}"
    directory.mkdir(parents=True)
    cgroups = PodCgroups(tmp_path)
    cgroups.refresh()
    directory.rmdir()
    assert cgroups.find(UID, "") is None


def test_where_the_level_is_unknown_several_are_tried(tmp_path: Path) -> None:
    """A temporary directory is not the root of a cgroup hierarchy, as on a node that is a container itself."""
    (tmp_path / f"pod{UID}").mkdir()
    cgroups = PodCgroups(tmp_path)
    cgroups.refresh()
    found = cgroups.find(UID, "")
    assert found is not None
    assert found.level_to > found.level_from
