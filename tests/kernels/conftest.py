"""One virtual machine for all tests on one kernel; with pytest-xdist, one process for it as well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernels import debian
from tests.kernels.vm import VirtualMachine

OLDEST = "6.1"
KERNELS = (OLDEST, "6.12", debian.NEWEST)
"""Of Debian 12, of Debian 13, and what comes next; this machine's own has all of tests/kernel."""
_TIMEOUT_SECONDS = 1800
"""Of one test: a download, a VM that starts, and what is run there, ten times slower than elsewhere."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(_TIMEOUT_SECONDS))


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in KERNELS])
def vm(request: pytest.FixtureRequest) -> Iterator[VirtualMachine]:
    with VirtualMachine(debian.fetch(request.param)) as made:
        yield made
