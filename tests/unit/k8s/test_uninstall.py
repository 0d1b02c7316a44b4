"""What the uninstall hook waits for, which nodes it leaves out, and what it logs when it waits in vain."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import pytest

from k8s.api.client import Api
from k8s.api.errors import ApiError, Unreachable
from k8s.commands.detach_progress import Remaining, kubelet_is_silent, remaining, unfinished
from k8s.commands.uninstall import DETACH, LOOK_SECONDS, PATCH, uninstall
from k8s.objects.raw import Raw

SECONDS = 30
PATH = "/apis/apps/v1/namespaces/elf/daemonsets/balancing-agent"
AGENT = ["python", "run.py"]
T = TypeVar("T")


def daemon_set(generation: int = 2, observed: int = 2, wanted: int = 3, updated: int = 3, ready: int = 3) -> Raw:
    numbers = {"desiredNumberScheduled": wanted, "updatedNumberScheduled": updated, "numberReady": ready}
    return {
        "metadata": {"generation": generation},
        "spec": {"selector": {"matchLabels": {"app": "x", "component": "agent"}}},
        "status": {"observedGeneration": observed, **numbers},
    }


def pod(node: str, *, command: list[str] = DETACH, ready: bool = False, going: bool = False, why: str = "") -> Raw:
    statuses = [{"state": {"waiting": {"reason": why}}}] if why else []
    return {
        "metadata": {"name": f"agent-{node}", **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if going else {})},
        "spec": {"containers": [{"command": command}], **({"nodeName": node} if node else {})},
        "status": {
            "phase": "Pending",
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": statuses,
        },
    }


def node(ready: str) -> Raw:
    return {
        "status": {"conditions": [{"type": "MemoryPressure", "status": "Unknown"}, {"type": "Ready", "status": ready}]}
    }


def _raised(answer: T | Exception) -> T:
    if isinstance(answer, Exception):
        raise answer
    return answer


class FakeApi:
    """Gives its answers about the DaemonSet in turn, and the last one from then on; Pods and Nodes stay as they are.
    Errors are raised."""

    def __init__(
        self, *daemon_sets: Raw | Exception, pods: Sequence[Raw] | Exception = (), nodes: dict[str, Raw] | None = None
    ) -> None:
        self._daemon_sets = list(daemon_sets)
        self._pods, self._nodes = pods, nodes or {}
        self.patches: list[tuple[Any, ...]] = []
        self.asked: list[str] = []

    def get(self, path: str, parameters: Any) -> Raw:
        self.asked.append(path)
        if path == PATH:
            return _raised(self._daemon_sets.pop(0) if len(self._daemon_sets) > 1 else self._daemon_sets[0])
        if path == "/api/v1/namespaces/elf/pods":
            assert parameters == {"labelSelector": "app=x,component=agent"}
            return {"items": _raised(self._pods)}
        return _raised(self._nodes.get(path.removeprefix("/api/v1/nodes/")) or ApiError(404, "NotFound", path))

    def send(self, *call: Any) -> Raw:
        self.patches.append(call)
        return {}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def run(api: FakeApi) -> int:
    clock = Clock()
    return uninstall(cast("Api", api), "elf", "balancing-agent", SECONDS, lambda: clock.now, clock.sleep)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (daemon_set(), ""),
        (daemon_set(wanted=0, updated=0, ready=0), ""),
        ({"metadata": {"generation": 1}, "status": {"observedGeneration": 1}}, ""),
        (daemon_set(observed=1), "the DaemonSet controller has not seen the patch"),
        ({"metadata": {"generation": 1}}, "the DaemonSet controller has not seen the patch"),
        (daemon_set(updated=2), "2 of 3 nodes are done"),
        (daemon_set(ready=1), "1 of 3 nodes are done"),
    ],
)
def test_a_daemon_set_is_finished_when_all_nodes_are_updated_and_ready(state: Raw, says: str) -> None:
    assert unfinished(state).startswith(says) and bool(unfinished(state)) is bool(says)


REMAINING = {
    "all done": ([pod("a", ready=True), pod("b", ready=True)], Remaining()),
    "still an agent": ([pod("b", command=AGENT), pod("a", ready=True)], ("b", "Pod agent-b is still an agent")),
    "going": ([pod("a", ready=True), pod("b", command=AGENT, going=True)], ("b", "Pod agent-b is Terminating")),
    "not ready": ([pod("a", ready=True), pod("b")], ("b", "Pod agent-b is not ready: Pending")),
    "no image": (
        [pod("a", ready=True), pod("b", why="ImagePullBackOff")],
        ("b", "Pod agent-b is not ready: ImagePullBackOff"),
    ),
    "not scheduled": ([pod("a", ready=True), pod("")], ("(not scheduled yet)", "Pod agent- is not ready: Pending")),
    "no Pod": ([pod("a", ready=True)], ("(1 more)", "no Pod yet")),
}  # fmt: skip


@pytest.mark.parametrize(("pods", "expected"), REMAINING.values(), ids=REMAINING)
def test_what_remains_is_reported_by_node(pods: list[Raw], expected: Remaining | tuple[str, str]) -> None:
    found = remaining(daemon_set(wanted=2), pods, DETACH, lambda _node: False)
    assert found == (expected if isinstance(expected, Remaining) else Remaining(waiting=(expected,)))


def test_a_silent_node_is_not_waited_for_unless_it_is_done() -> None:
    pods = [pod("a", ready=True), pod("b", command=AGENT, going=True), pod("c")]
    found = remaining(daemon_set(), pods, DETACH, lambda node: node in {"a", "b"})
    assert found == Remaining(waiting=(("c", "Pod agent-c is not ready: Pending"),), not_reporting=("b",))


@pytest.mark.parametrize(("ready", "silent"), [("True", False), ("False", False), ("Unknown", True)])
def test_a_node_is_silent_when_its_kubelet_does_not_report(ready: str, *, silent: bool) -> None:
    assert kubelet_is_silent(node(ready)) is silent
    assert not kubelet_is_silent({"metadata": {}})


def test_the_hook_patches_once_and_waits(logged: Callable[[], list[str]]) -> None:
    api = FakeApi(
        daemon_set(ready=0),
        Unreachable("cut off"),
        ApiError(503, "Unavailable", "not now"),
        daemon_set(ready=2),
        daemon_set(),
    )
    assert run(api) == 0
    assert api.patches == [("PATCH", PATH, PATCH, "application/strategic-merge-patch+json")]
    assert logged() == [
        "0 of 3 nodes are done",
        "cut off",
        "503 Unavailable: not now",
        "2 of 3 nodes are done",
        "detached on all nodes",
    ]
    assert set(api.asked) == {PATH}, "while it goes on, Pods and nodes are not read"


def test_the_hook_goes_on_without_a_node_that_is_down_and_names_it(logged: Callable[[], list[str]]) -> None:
    pods = [pod("a", ready=True), pod("b", ready=True), pod("c", command=AGENT, going=True)]
    api = FakeApi(daemon_set(updated=2), pods=pods, nodes={"c": node("Unknown")})
    assert run(api) == 0
    assert logged()[1].startswith("node c: its kubelet does not report, so nothing can be detached there.")
    assert logged()[2:] == ["detached on all other nodes"]
    assert "/api/v1/nodes/a" not in api.asked


def test_the_hook_waits_for_the_other_nodes_first(logged: Callable[[], list[str]]) -> None:
    pods = [pod("a", why="ErrImagePull"), pod("b", ready=True), pod("c", command=AGENT, going=True)]
    assert run(FakeApi(daemon_set(ready=1), pods=pods, nodes={"a": node("True"), "c": node("Unknown")})) == 1
    assert "node a: Pod agent-a is not ready: ErrImagePull" in logged()
    assert any(line.startswith("node c: its kubelet does not report") for line in logged())
    assert f"nothing is deleted: these nodes did not detach within {SECONDS} s" in logged()[-1]
    assert "`helm uninstall --no-hooks`" in logged()[-1]


def test_an_api_server_that_stays_away_is_named(logged: Callable[[], list[str]]) -> None:
    assert run(FakeApi(Unreachable("no route"))) == 1
    assert "node (unknown): no route; no route" in logged() and "nothing is deleted" in logged()[-1]


@pytest.mark.parametrize(
    "api",
    [
        FakeApi(ApiError(403, "Forbidden", "you may not")),
        FakeApi(daemon_set(ready=2), pods=ApiError(403, "Forbidden", "you may not")),
    ],
    ids=["the DaemonSet", "its Pods"],
)
def test_without_the_right_the_hook_fails(api: FakeApi, logged: Callable[[], list[str]]) -> None:
    assert run(api) == 1
    assert logged()[-1] == "403 Forbidden: you may not"
    assert len([path for path in api.asked if path == PATH]) <= LOOK_SECONDS + 3


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
