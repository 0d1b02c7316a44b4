"""Beside other software on the same node: another socket load balancer, and real DNS software."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from bpf import libbpf
from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.foreign import can_come_first
from tests.lab.lab import REMOTE, VIP, Lab, PodProcess
from tests.lab.neighbours import dnsmasq, foreign_programs
from tests.lab.processes import wait_until

NAME = "answer.test"
ADDRESS = "192.0.2.7"
DNS_PORT = 5353
ELSEWHERE = "169.254.0.91"
"""The other programs translate VIP to this address of the remote cluster."""
OTHER_FIRST = 'localredirect_datapath_fault{fault="other_program_first"}'


@pytest.fixture
def redirected(lab: Lab, agent: Agent, pods: list[PodProcess]) -> None:
    lab.write("pod", manifests.pod(pods[0]))
    lab.write("policies", manifests.policy("vip"))
    wait_until(lambda: agent.states() == {"vip": "Active"}, "active")


def before_us(agent: Agent) -> object:
    return agent.status()["datapath"]["programs_before_us"]


@pytest.mark.usefixtures("redirected")
def test_ours_stays_first_when_another_program_comes_later(lab: Lab, agent: Agent, client: PodProcess) -> None:
    with foreign_programs(lab.cgroup, VIP, ELSEWHERE):
        assert client.do("udp", address=VIP, port=53) == {"who": "pod0", "source": [VIP, 53]}
        assert before_us(agent) == {}
        # A call that we do not redirect is left to the other program.
        assert client.do("tcp", address=VIP, port=80)["peer"] == [ELSEWHERE, 80]


@pytest.mark.usefixtures("redirected")
def test_an_agent_that_starts_beside_another_program_goes_first_or_reports_that_program(
    lab: Lab, agent: Agent, client: PodProcess
) -> None:
    """Where the kernel can, it puts ours first all the same. Otherwise the agent reports the other program's id."""
    agent.terminate()
    shutil.rmtree(lab.bpffs / "links")  # the attachments; the build stays, and is adopted
    with foreign_programs(lab.cgroup, VIP, ELSEWHERE) as theirs:
        agent.start()
        wait_until(lambda: agent.states() == {"vip": "Active"}, "active")
        answer = client.do("udp", address=VIP, port=53)
        if can_come_first(lab.cgroup):
            assert answer == {"who": "pod0", "source": [VIP, 53]}
            assert before_us(agent) == {}
        else:
            assert answer["who"] == REMOTE
            assert before_us(agent) == theirs
            assert f"connect4: {theirs['connect4'][0]} on cgroup {lab.cgroup} runs before ours" in agent.log.read_text()


@pytest.mark.usefixtures("redirected")
def test_a_program_is_later_put_before_ours_only_where_the_kernel_can_and_is_then_reported(
    lab: Lab, agent: Agent, client: PodProcess
) -> None:
    """To report its name, the agent would have to open it by its id, which needs CAP_SYS_ADMIN."""
    if can_come_first(lab.cgroup):
        with foreign_programs(lab.cgroup, VIP, ELSEWHERE, libbpf.BPF_F_BEFORE) as theirs:
            assert client.do("udp", address=VIP, port=53)["who"] == REMOTE
            assert before_us(agent) == theirs
            assert agent.metric(OTHER_FIRST) == 1
            assert agent.fetch("/readyz") == "ok\n"
    else:
        # The kernel has just refused the flag, so another program can only come after ours.
        with foreign_programs(lab.cgroup, VIP, ELSEWHERE):
            assert client.do("udp", address=VIP, port=53) == {"who": "pod0", "source": [VIP, 53]}
            assert before_us(agent) == {}
            assert agent.metric(OTHER_FIRST) == 0
            assert agent.fetch("/readyz") == "ok\n"
    assert before_us(agent) == {}
    assert agent.metric(OTHER_FIRST) == 0


@pytest.fixture
def dns_pod(pods: list[PodProcess]) -> Iterator[PodProcess]:
    """A Pod with a real DNS server."""
    with dnsmasq(pods[2], port=DNS_PORT, name=NAME, address=ADDRESS):
        yield pods[2]


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_a_real_resolver_client_asks_a_real_server_behind_the_virtual_ip(
    lab: Lab, agent: Agent, client: PodProcess, dns_pod: PodProcess, transport: str
) -> None:
    lab.write("pod", manifests.pod(dns_pod))
    ports = ((53, "UDP"), (53, "TCP"))
    lab.write("policies", manifests.policy("dns", ip="169.254.0.92", ports=ports, backend_port=DNS_PORT))
    wait_until(lambda: agent.states() == {"dns": "Active"}, "active")
    assert client.cgroup
    join = 'echo $$ > "$0/cgroup.procs"; exec "$@"'  # runs dig as a process of the client's Pod
    enter = ["sh", "-c", join, str(client.cgroup), "nsenter", f"--net=/run/netns/{lab.prefix}-{client.name}"]
    ask = ["dig", "+short", "+tries=1", "+time=3", transport, "@169.254.0.92", NAME, "A"]
    result = subprocess.run([*enter, *ask], capture_output=True, text=True, check=False)
    assert result.stdout.split() == [ADDRESS], result


def test_without_a_policy_calls_take_the_normal_way(agent: Agent, client: PodProcess) -> None:
    wait_until(lambda: agent.states() == {}, "no policies")
    assert client.do("udp", address=VIP, port=53)["who"] == REMOTE
