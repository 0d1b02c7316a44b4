"""Names of containers' cgroups, as runtimes and cgroup drivers give them (P18)."""

from __future__ import annotations

import pytest

from bpf.cgroups.container_cgroups import container_id

ID = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("directory", "identifier"),
    [
        pytest.param(ID, ID, id="containerd, cgroupfs"),
        pytest.param(f"cri-containerd-{ID}.scope", ID, id="containerd, systemd"),
        pytest.param(f"crio-{ID}", ID, id="CRI-O, cgroupfs"),
        pytest.param(f"crio-{ID}.scope", ID, id="CRI-O, systemd"),
        pytest.param(f"docker-{ID}.scope", ID, id="cri-dockerd, systemd"),
        # CRI-O starts a monitor for each container, which lives beside the container and outlives it.
        pytest.param(f"crio-conmon-{ID}", "", id="CRI-O's monitor, cgroupfs"),
        pytest.param(f"crio-conmon-{ID}.scope", "", id="CRI-O's monitor, systemd"),
    ],
)
def test_the_id_is_read_from_the_directory_name(directory: str, identifier: str) -> None:
    assert container_id(directory) == identifier
