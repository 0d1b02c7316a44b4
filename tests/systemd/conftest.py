"""The time-out of tests on a node that boots systemd."""

from __future__ import annotations

from pathlib import Path

import pytest

_TIMEOUT_SECONDS = 7200
"""For one test, and for the start of the node, which the first test includes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(_TIMEOUT_SECONDS))
