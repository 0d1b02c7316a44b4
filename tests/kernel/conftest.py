"""One laboratory for all kernel tests. Each module has an agent of its own, and each test removes its manifests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from tests.lab.agent import Agent
from tests.lab.closer import Closer
from tests.lab.lab import CLUSTER_IP6, VIPS, Lab, PodProcess
from tests.lab.processes import wait_until
from tests.lab.worker import SLOWNESS

TIMEOUT_SECONDS = 300
"""The time-out of a test with its fixtures. It is longer than a test waits for anything, such as two agents that
compile the programs, so that a test on a stalled machine ends with what it waited for and the agent's log."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--one-agent", action="store_true", help="start the agent once for all modules")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TIMEOUT_SECONDS * SLOWNESS))
            if config.getoption("--one-agent") and hasattr(getattr(item, "module", None), "AGENT_OPTIONS"):
                msg = f"{item.path} needs an agent of its own, and cannot run with --one-agent"
                raise pytest.UsageError(msg)


def _scope_of_agent(fixture_name: str, config: pytest.Config) -> Literal["session", "module"]:  # noqa: ARG001
    return "session" if config.getoption("--one-agent") else "module"


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        for port, protocol in ((53, "UDP"), (54, "UDP"), (80, "TCP"), (8080, "TCP")):
            # A UDP server answers from the address that it is bound to, so each address needs one.
            for address in VIPS if protocol == "UDP" else ("0.0.0.0",):
                made.remote.do("serve", address=address, port=port, protocol=protocol)
        made.remote.do("serve", address=CLUSTER_IP6, port=53, protocol="UDP")
        yield made


@pytest.fixture(scope="session")
def pods(lab: Lab) -> list[PodProcess]:
    """Three Pods that serve UDP 53 and TCP 80 on both families, at the same addresses whichever test is first."""
    made = [lab.pod(f"pod{i}", host=2 + i) for i in range(3)]
    for each in made:
        for address in (each.address, each.address6):
            each.do("serve", address=address, port=53, protocol="UDP")
            each.do("serve", address=address, port=80, protocol="TCP")
    return made


@pytest.fixture(scope="session")
def client(lab: Lab) -> PodProcess:
    return lab.pod("client")


@pytest.fixture(scope=_scope_of_agent)
def agent(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Agent]:
    """An agent for all tests of a module, with the default configuration but for what the module's AGENT_OPTIONS set
    (as in Lab.agent). Modules whose agent is another one give it another name; they cannot run with `--one-agent`."""
    options = getattr(request.module, "AGENT_OPTIONS", {}) if request.scope == "module" else {}
    with lab.running_agent(**options) as made:
        yield made


@pytest.fixture
def closer(lab: Lab, agent: Agent) -> Iterator[Closer]:
    made = Closer(lab, agent)
    made.await_line("closing stale sockets for build")
    yield made
    made.kill()


@pytest.fixture(autouse=True)
def no_manifests_left(lab: Lab, request: pytest.FixtureRequest) -> Iterator[None]:
    """Removes the test's manifests, and waits until the module's agent has noticed. Otherwise it may read the directory
    only when the next test has written its own: a policy of the same name then goes on, with its state and counts."""
    yield
    for path in lab.manifests.iterdir():
        path.unlink()
    if "agent" in request.fixturenames:
        agent = request.getfixturevalue("agent")
        wait_until(lambda: not (agent.fetch("/status") and agent.states()), "the agent has no policy any longer")
