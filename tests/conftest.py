"""What every test of actors relies on: none outlives its test, and none fails unless the test says so."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pykka
import pytest
from hypothesis import settings

# Otherwise Hypothesis fails a test if one example takes longer than 200 ms, as happens on a busy machine.
settings.register_profile("localredirect", deadline=None)
settings.load_profile("localredirect")


@pytest.fixture
def expects_failures() -> None:
    """Named by tests in which an actor is meant to fail."""


@pytest.fixture(autouse=True)
def actors_end_with_the_test(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Stops all actors; fails on an error that Pykka logged, which an assertion elsewhere may not see."""
    yield
    pykka.ActorRegistry.stop_all(timeout=5)
    if "expects_failures" in request.fixturenames:
        return
    records = [record for phase in ("setup", "call") for record in caplog.get_records(phase)]
    errors = [
        record.getMessage()
        for record in [*records, *caplog.records]
        if record.name.startswith("pykka") and record.levelno >= logging.ERROR
    ]
    assert not errors, errors
