"""Finding Pods' cgroup directories, whose names depend on the kubelet's cgroup driver (P12)."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpf.cgroups.pod_cgroups import PodCgroups, pod_uid

UID = "6f9b0c1e-1111-2222-3333-444455556666"
OTHER = "7a9b0c1e-1111-2222-3333-444455556666"
HASH = "0123456789abcdef0123456789abcdef"
IN_SLICE = UID.replace("-", "_")

PLACES = {
    "cgroupfs, guaranteed": f"kubepods/pod{UID}",
    "cgroupfs, burstable": f"kubepods/burstable/pod{UID}",
    "cgroupfs, best effort": f"kubepods/besteffort/pod{UID}",
    "systemd, guaranteed": f"kubepods.slice/kubepods-pod{IN_SLICE}.slice",
    "systemd, burstable": f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{IN_SLICE}.slice",
    "systemd, best effort": f"kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{IN_SLICE}.slice",
    "cgroupfs, cgroupRoot /pods": f"pods/kubepods/burstable/pod{UID}",
    "cgroupfs, cgroupRoot /pods without kubepods": f"pods/pod{UID}",
    "cgroupfs, cgroupRoot /a/pod-b": f"a/pod-b/kubepods/pod{UID}",
    "systemd, cgroupRoot /pods": f"pods.slice/pods-kubepods.slice/pods-kubepods-pod{IN_SLICE}.slice",
    "systemd, cgroupRoot /a/pods": f"a.slice/a-pods.slice/a-pods-kubepods.slice/a-pods-kubepods-pod{IN_SLICE}.slice",
    "systemd, kind": f"kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{IN_SLICE}.slice",
    "of a kubelet within a Pod": f"kubepods/burstable/pod{OTHER}/node/kubelet/kubepods/pod{UID}",
    "the same, systemd": f"kubepods.slice/kubepods-pod{HASH}.slice/node/kubepods.slice/kubepods-pod{IN_SLICE}.slice",
}


def found_below(root: Path, uid: str = UID, config_hash: str = "") -> tuple[PodCgroups, list[int]]:
    cgroups = PodCgroups(root)
    cgroups.update([(uid, config_hash)])
    return cgroups, ids(cgroups, uid, config_hash)


def ids(cgroups: PodCgroups, uid: str = UID, config_hash: str = "") -> list[int]:
    return [cgroup.cgroup_id for cgroup in cgroups.find(uid, config_hash)]


@pytest.mark.parametrize(
    ("name", "uid"),
    [
        (f"pod{UID}", UID),
        (f"kubepods-besteffort-pod{IN_SLICE}.slice", UID),
        (f"kubepods-pod{IN_SLICE}.slice", UID),
        (f"pods-kubepods-burstable-pod{IN_SLICE}.slice", UID),
        (f"kubepods-pod{HASH}.slice", HASH),
        (f"pod{HASH}", HASH),
        ("kubepods.slice", None),
        ("kubepods", None),
        ("besteffort", None),
        ("system.slice", None),
        ("cri-containerd-0123.scope", None),
    ],
)
def test_the_uid_is_read_from_the_directory_name(name: str, uid: str | None) -> None:
    assert pod_uid(name) == uid


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_pod_is_found_wherever_the_kubelet_puts_it(tmp_path: Path, place: str) -> None:
    directory = tmp_path / place
    (directory / "c0ffee").mkdir(parents=True)
    _, found = found_below(tmp_path)
    assert found == [directory.stat().st_ino]


@pytest.mark.parametrize("place", [f"kubepods/burstable/pod{HASH}", f"kubepods.slice/kubepods-pod{HASH}.slice"])
def test_a_static_pods_directory_is_found_by_its_config_hash(tmp_path: Path, place: str) -> None:
    directory = tmp_path / place
    directory.mkdir(parents=True)
    _, found = found_below(tmp_path, config_hash=HASH)
    assert found == [directory.stat().st_ino]


def test_a_pod_within_another_one_does_not_hide_it(tmp_path: Path) -> None:
    inner = tmp_path / "kubepods" / f"pod{UID}" / "kubepods" / f"pod{OTHER}"
    inner.mkdir(parents=True)
    cgroups = PodCgroups(tmp_path)
    cgroups.update([(UID, ""), (OTHER, "")])
    assert (ids(cgroups), ids(cgroups, OTHER)) == ([inner.parent.parent.stat().st_ino], [inner.stat().st_ino])


def test_all_directories_of_a_pod_count_as_after_a_change_of_the_cgroup_driver(tmp_path: Path) -> None:
    directories = [tmp_path / f"kubepods/pod{UID}", tmp_path / f"kubepods.slice/kubepods-pod{IN_SLICE}.slice"]
    for directory in directories:
        directory.mkdir(parents=True)
    _, found = found_below(tmp_path)
    assert sorted(found) == sorted(directory.stat().st_ino for directory in directories)


def test_a_directory_that_went_is_not_found(tmp_path: Path) -> None:
    directory = tmp_path / "kubepods" / f"pod{UID}"
    directory.mkdir(parents=True)
    cgroups, _ = found_below(tmp_path)
    directory.rmdir()
    assert cgroups.update([], all_found=True) == {UID}
    assert ids(cgroups) == []


def test_a_directory_that_was_made_again_is_another_one(tmp_path: Path) -> None:
    """This happens when a static Pod's manifest is moved away and back."""
    directory = tmp_path / "kubepods" / f"pod{HASH}"
    directory.mkdir(parents=True)
    cgroups, former = found_below(tmp_path, config_hash=HASH)
    (tmp_path / "kubepods" / "next").mkdir()  # while the former one is there, so that it has another number
    directory.rmdir()
    (tmp_path / "kubepods" / "next").rename(directory)
    assert cgroups.update([(UID, HASH)]) == {HASH}
    assert ids(cgroups, UID, HASH) == [directory.stat().st_ino] != former
    assert cgroups.update([(UID, HASH)], all_found=True) == frozenset()


def test_where_the_level_is_unknown_a_pod_is_found_with_a_range_of_levels(tmp_path: Path) -> None:
    """A temporary directory is not the root of a hierarchy, just as the mount on a node that is itself a container."""
    (tmp_path / f"pod{UID}").mkdir()
    cgroups, _ = found_below(tmp_path)
    (found,) = cgroups.find(UID, "")
    assert found.level_to > found.level_from
