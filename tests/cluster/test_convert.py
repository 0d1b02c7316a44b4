"""What `run.py convert` prints is accepted by a real API server, without a warning."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import RedirectSettings
from k8s.commands.convert import convert
from tests.cluster.binaries import ROOT
from tests.cluster.control_plane import ControlPlane

INPUTS = ROOT / "tests" / "unit" / "k8s" / "conversion"


@pytest.mark.parametrize("path", sorted(INPUTS.iterdir()), ids=lambda path: path.stem)
def test_the_api_server_accepts_converted_manifests_strictly(control_plane: ControlPlane, path: Path) -> None:
    converted = convert([path], RedirectSettings())
    assert converted.faults == ()
    apply = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")
    applied = control_plane.kubectl(*apply, input=converted.manifests)
    assert "Warning" not in applied.stderr, applied.stderr
    assert applied.stdout.count("(server dry run)") == converted.manifests.count("\nkind: ")
