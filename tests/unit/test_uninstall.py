"""What the uninstall hook waits for, and what it says when it waits in vain."""

from __future__ import annotations

import itertools
import logging
from typing import Any, cast

import pytest

from k8s.api import Api, ApiError, Raw, Unreachable
from k8s.uninstall import main, missing

ARGUMENTS = ("elf", "balancing-agent", "1")


def daemon_set(generation: int = 2, observed: int = 2, wanted: int = 3, updated: int = 3, ready: int = 3) -> Raw:
    numbers = {"desiredNumberScheduled": wanted, "updatedNumberScheduled": updated, "numberReady": ready}
    return {"metadata": {"generation": generation}, "status": {"observedGeneration": observed, **numbers}}


class FakeApi:
    """Answers in turn; an exception is raised. The last answer is given for ever."""

    def __init__(self, *answers: Raw | Exception) -> None:
        self._answers = list(answers)
        self.patches: list[tuple[Any, ...]] = []

    def _next(self) -> Raw:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def get(self, _path: str, _parameters: Any) -> Raw:
        return self._next()

    def send(self, *call: Any) -> Raw:
        self.patches.append(call)
        return {}


def run(api: FakeApi) -> int:
    """By a clock that goes on by 0.1 s when it is looked at."""
    ticks = itertools.count()
    return main(ARGUMENTS, lambda _kubeconfig: cast("Api", api), lambda: next(ticks) / 10, lambda _seconds: None)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (daemon_set(), ""),
        (daemon_set(wanted=0, updated=0, ready=0), ""),
        ({"metadata": {"generation": 1}, "status": {"observedGeneration": 1}}, ""),
        (daemon_set(observed=1), "the patch has not been seen"),
        ({"metadata": {"generation": 1}}, "the patch has not been seen"),
        (daemon_set(updated=2), "2 of 3 nodes are done"),
        (daemon_set(ready=1), "1 of 3 nodes are done"),
    ],
)
def test_what_is_missing(state: Raw, says: str) -> None:
    assert missing(state).startswith(says) and bool(missing(state)) is bool(says)


def test_it_patches_once_and_waits(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    api = FakeApi(
        daemon_set(ready=0),
        Unreachable("cut off"),
        ApiError(503, "Unavailable", "not now"),
        daemon_set(ready=2),
        daemon_set(),
    )
    assert run(api) == 0
    ((method, path, body, content_type),) = api.patches
    assert (method, path) == ("PATCH", "/apis/apps/v1/namespaces/elf/daemonsets/balancing-agent")
    assert "detach" in str(body) and content_type == "application/strategic-merge-patch+json"
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "0 of 3 nodes are done",
        "cut off",
        "503 Unavailable: not now",
        "2 of 3 nodes are done",
        "nothing of ours is in any kernel",
    ]


def test_in_vain(caplog: pytest.LogCaptureFixture) -> None:
    assert run(FakeApi(daemon_set(ready=2))) == 1
    assert "not on all nodes within 1 s" in caplog.text and "--no-hooks" in caplog.text


def test_without_the_right_it_fails_at_once(caplog: pytest.LogCaptureFixture) -> None:
    assert run(FakeApi(ApiError(403, "Forbidden", "you may not"))) == 1
    assert "403 Forbidden: you may not" in caplog.text


def test_without_a_daemon_set_there_is_nothing_to_do() -> None:
    assert run(FakeApi(ApiError(404, "NotFound", "no such thing"))) == 0


def test_an_api_server_that_is_away_at_first_is_asked_again() -> None:
    class Away(FakeApi):
        def send(self, *call: Any) -> Raw:
            super().send(*call)
            if len(self.patches) == 1:
                raise Unreachable("away")
            return {}

    api = Away(daemon_set())
    assert run(api) == 0
    assert len(api.patches) == 2
