"""One virtual machine for all tests on one kernel. With pytest-xdist, one process runs them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernels import debian
from tests.kernels.vm import VirtualMachine

OLDEST = "6.1"
KERNELS = (OLDEST, "6.12", debian.NEWEST)
"""The kernels of Debian 12, of Debian 13, and the newest. All of tests/kernel runs on this machine's own."""
_TIMEOUT_SECONDS = 1800
"""For one test: a download, the start of a VM, and a run that is ten times slower than elsewhere."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(_TIMEOUT_SECONDS))


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in KERNELS])
def vm(request: pytest.FixtureRequest) -> Iterator[VirtualMachine]:
    with VirtualMachine(debian.fetch(request.param)) as made:
        yield made
