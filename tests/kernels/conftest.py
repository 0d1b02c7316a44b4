"""Virtual machines for the tests, one at a time in each process."""

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


@pytest.fixture(params=KERNELS)
def vm(request: pytest.FixtureRequest) -> Iterator[VirtualMachine]:
    """Each test has a machine of its own, so that the two processes of `make kernels-test` have equally much to do."""
    with VirtualMachine(debian.fetch(request.param)) as made:
        yield made
