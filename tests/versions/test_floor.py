"""What the last version of Kubernetes that we do not support refuses of k8s/install.yaml."""

from __future__ import annotations

import os

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.install_yaml import INSTALL
from tests.versions.__main__ import BELOW_THE_FLOOR


@pytest.mark.timeout(300)
def test_the_version_below_the_floor_refuses_the_crd_and_nothing_else() -> None:
    assert os.environ.get("KUBERNETES") == BELOW_THE_FLOOR, "make versions sets it"
    with ControlPlane() as plane:
        assert plane.api.get("/version")["gitVersion"].startswith(f"v{BELOW_THE_FLOOR}.")
        applied = plane.kubectl("apply", "-f", str(INSTALL), check=False)
    refused = [line for line in applied.stderr.splitlines() if line.strip()]
    assert applied.returncode == 1
    assert refused[0].startswith("The CustomResourceDefinition"), refused
    assert "localredirectpolicies.balancing.elf.io" in refused[0]
    assert any("undeclared reference to 'isIP'" in line for line in refused), refused
    assert "daemonset.apps/balancing-agent created" in applied.stdout
