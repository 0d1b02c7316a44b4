"""The agent's two HTTP servers: neither their clients nor an address that is in use can end redirects."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest
import yaml

from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.lab import REMOTE, VIP, Lab, PodProcess
from tests.lab.processes import wait_until
from tests.process_usage import resident_megabytes

NODE_ADDRESS = "10.77.0.1"
MAX_RESIDENT = 150
"""MB of memory. About 50 are usual; 100 clients with unfinished headers once took 659."""
WHOLE_EXCHANGE = 60.0
"""Seconds. The agent keeps no connection for so long, even on a slow machine."""


@pytest.fixture
def unstarted_agent(lab: Lab, pods: list[PodProcess]) -> Iterator[Agent]:
    """The test starts it. Every Pod will be able to reach both of its servers."""
    lab.write("pod", manifests.pod(pods[0]))
    lab.write("policies", manifests.policy("dns"))
    made = Agent(lab, {"metrics__address": "0.0.0.0", "health__address": "0.0.0.0"})
    yield made
    made.kill()
    made.command("detach")


@pytest.fixture(scope="module")
def attacker(lab: Lab) -> PodProcess:
    return lab.pod("attacker")


def assert_unharmed(lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess]) -> None:
    """Other clients are answered, changes are installed, and no actor has failed."""
    for _ in range(5):
        assert agent.fetch("/healthz") == agent.fetch("/readyz") == "ok\n"
        assert agent.metric('localredirect_policy_state{policy="dns",state="Active"}') == 1
    assert client.do("udp", address=VIP, port=53)["who"] == "pod0"
    lab.write("pod", manifests.pod(pods[0], ready=False))
    wait_until(lambda: client.do("udp", address=VIP, port=53)["who"] == REMOTE, "the backend is gone")
    lab.write("pod", manifests.pod(pods[0]))
    wait_until(lambda: client.do("udp", address=VIP, port=53)["who"] == "pod0", "the backend is back")
    assert {each["name"]: each["restarts"] for each in agent.status()["actors"] if each["restarts"]} == {}


@pytest.mark.parametrize("connections", [100, 1000])
def test_clients_that_never_end_their_requests_exhaust_neither_memory_nor_descriptors(
    connections: int, lab: Lab, unstarted_agent: Agent, attacker: PodProcess, client: PodProcess, pods: list[PodProcess]
) -> None:
    unstarted_agent.start()
    assert unstarted_agent.process
    resource.prlimit(unstarted_agent.process.pid, resource.RLIMIT_NOFILE, (1024, 1024))
    kilobytes = 5800 if connections == 100 else 4
    for port in (unstarted_agent.metrics, unstarted_agent.health):
        attacker.do("hold_connections", address=NODE_ADDRESS, port=port, connections=connections, kilobytes=kilobytes)
    assert_unharmed(lab, unstarted_agent, client, pods)
    assert resident_megabytes(unstarted_agent.process.pid) < MAX_RESIDENT
    wait_until(
        lambda: attacker.do("open_connections")["number"] == 0,
        "all are closed, although they send",
        WHOLE_EXCHANGE,
    )
    assert resident_megabytes(unstarted_agent.process.pid) < MAX_RESIDENT


@pytest.mark.parametrize("section", ["metrics", "health"])
def test_a_port_in_use_ends_no_redirect_and_is_taken_once_it_is_free(
    section: str, lab: Lab, unstarted_agent: Agent, client: PodProcess
) -> None:
    port = getattr(unstarted_agent, section)
    taker = lab.host_process("taker")
    taker.do("serve", address="127.0.0.1", port=port, protocol="TCP")
    unstarted_agent.start(ready=section == "metrics")
    wait_until(lambda: client.do("udp", address=VIP, port=53)["who"] == "pod0", "calls are redirected", 30)
    fault = f"{section}.address, {section}.port: cannot listen on 0.0.0.0 port {port}: Address already in use"
    if section == "metrics":
        assert unstarted_agent.status()["metrics"] == {"fault": fault}
    taker.kill()
    path = "/metrics" if section == "metrics" else "/readyz"
    wait_until(lambda: unstarted_agent.fetch(path) != "", "it listens")
    assert {each["name"]: each["restarts"] for each in unstarted_agent.status()["actors"] if each["restarts"]} == {}
    wait_until(lambda: "metrics" not in unstarted_agent.status(), "/status shows no fault")
    assert unstarted_agent.log.read_text().count(fault) == 1


def test_the_agent_resolves_no_name_at_its_start_and_takes_the_host_name_in_small_letters(
    lab: Lab, unstarted_agent: Agent, client: PodProcess
) -> None:
    settings = yaml.safe_load(unstarted_agent.config.read_text())
    del settings["node_name"]
    unstarted_agent.config.write_text(yaml.safe_dump(settings))
    resolver = lab.host_process("resolver")
    resolver.do("listen", address="127.0.0.1", port=53)
    names = lab.folder / "resolv.conf"
    names.write_text("nameserver 127.0.0.1\n")
    node = 'mount --bind "$0" /etc/resolv.conf && hostname NODE && exec "$@"'
    unstarted_agent.start(within=("unshare", "--mount", "--uts", "sh", "-c", node, str(names)))
    assert unstarted_agent.status()["node"] == "node"
    assert client.do("udp", address=VIP, port=53)["who"] == "pod0"
    assert unstarted_agent.fetch("/metrics") != ""
    assert resolver.do("heard")["heard"] == []
    resolver.kill()
