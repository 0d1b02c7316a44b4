"""`make versions` tests the version that it names."""

from __future__ import annotations

import os

from tests.cluster.control_plane import ControlPlane
from tests.versions.__main__ import NEWEST


def test_the_api_server_is_of_the_version_that_was_asked_for() -> None:
    with ControlPlane() as plane:
        version = plane.api.get("/version")["gitVersion"]
    assert version.startswith(f"v{os.environ.get('KUBERNETES') or NEWEST}.")
