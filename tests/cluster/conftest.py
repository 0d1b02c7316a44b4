"""One control plane and one node for all tests of a session. The first test that needs one starts it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.install_yaml import CRD
from tests.cluster.installation import Installation, load_images
from tests.cluster.node import Node

TIMEOUT_SECONDS = 300
"""The time-out of a test that names none. It includes fixtures; what takes minutes is built before that
(tests.cluster.ready)."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TIMEOUT_SECONDS))


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        apply_crds(plane)
        yield plane


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    with Node() as made:
        apply_crds(made)
        yield made


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    """The agent and the controller, installed by `kubectl apply -f k8s/install.yaml` on a node of their own."""
    with Node() as made:
        load_images(made)
        installed = Installation(made)
        installed.apply()
        yield installed


def apply_crds(plane: ControlPlane) -> None:
    """Returns when policies can be created."""
    plane.apply(CRD.read_text())
    plane.wait("condition=Established", 30, "crd", "--all")
