"""Beside other software on the same node: another socket load balancer, and real DNS software."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bpf import libbpf
from tests.lab import manifests
from tests.lab.foreign import can_come_first
from tests.lab.lab import REMOTE, ROOT, VIP, Agent, Lab, PodProcess, wait_until

NAME = "answer.test"
ADDRESS = "192.0.2.7"


@pytest.fixture
def redirected(lab: Lab, agent: Agent, pods: list[PodProcess]) -> None:
    lab.write("pod", manifests.pod(pods[0]))
    lab.write("policies", manifests.policy("vip"))
    wait_until(lambda: agent.states() == {"vip": "Active"}, "active")


@contextmanager
def foreign(lab: Lab, *flags: int) -> Iterator[dict[str, list[str]]]:
    """Attaches programs that translate the virtual IP to another address. Yields hook -> how we name its program."""
    command = [sys.executable, "-m", "tests.lab.foreign", str(lab.cgroup), VIP, "169.254.0.91", *map(str, flags)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    try:
        connect4, sendmsg4 = process.stdout.readline().split()
        yield {"connect4": [f"program {connect4}"], "sendmsg4": [f"program {sendmsg4}"]}
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def before_us(agent: Agent) -> object:
    return agent.status()["datapath"]["programs_before_us"]


@pytest.mark.usefixtures("redirected")
def test_ours_stays_first_when_another_program_comes_later(lab: Lab, agent: Agent, client: PodProcess) -> None:
    with foreign(lab):
        assert client.do("udp", address=VIP, port=53) == {"who": "pod0", "source": [VIP, 53]}
        assert before_us(agent) == {}
        # A call that we do not redirect is left to the other program.
        assert client.do("tcp", address=VIP, port=80)["peer"] == ["169.254.0.91", 80]


@pytest.mark.usefixtures("redirected")
def test_an_agent_that_starts_beside_another_program_goes_first_or_reports_that_program(
    lab: Lab, agent: Agent, client: PodProcess
) -> None:
    """Where the kernel can, it puts ours first all the same. Otherwise the agent reports the other program's id."""
    agent.terminate()
    shutil.rmtree(lab.bpffs / "links")  # the attachments; the build stays, and is adopted
    with foreign(lab) as theirs:
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
def test_a_program_that_is_later_put_before_ours_is_reported(lab: Lab, agent: Agent, client: PodProcess) -> None:
    """To report its name, the agent would have to open it by its id, which needs CAP_SYS_ADMIN."""
    if not can_come_first(lab.cgroup):
        return  # on this kernel nobody can do that
    with foreign(lab, libbpf.BPF_F_BEFORE) as theirs:
        assert client.do("udp", address=VIP, port=53)["who"] == REMOTE
        assert before_us(agent) == theirs
        assert agent.metric('localredirect_datapath_fault{fault="other_program_first"}') == 1
        assert agent.fetch("/readyz") == "ok\n"
    assert before_us(agent) == {}
    assert agent.metric('localredirect_datapath_fault{fault="other_program_first"}') == 0


@pytest.fixture
def dnsmasq(lab: Lab, pods: list[PodProcess]) -> Iterator[PodProcess]:
    """A real DNS server in a Pod's namespace."""
    pod = pods[2]
    command = ["nsenter", f"--net=/run/netns/{lab.prefix}-{pod.name}", "dnsmasq", "--keep-in-foreground", "--port=5353"]
    options = ["--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--pid-file=", f"--address=/{NAME}/{ADDRESS}"]
    process = subprocess.Popen(
        [*command, *options, "--user=root", "--log-queries", "--log-facility=-"], stderr=subprocess.PIPE
    )
    assert process.stderr
    for line in process.stderr:
        if b"started" in line:
            break
    yield pod
    process.terminate()
    process.wait(10)
    process.stderr.close()


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_a_real_resolver_client_asks_a_real_server_behind_the_virtual_ip(
    lab: Lab, agent: Agent, client: PodProcess, dnsmasq: PodProcess, transport: str
) -> None:
    lab.write("pod", manifests.pod(dnsmasq))
    ports = ((53, "UDP"), (53, "TCP"))
    lab.write("policies", manifests.policy("dns", ip="169.254.0.92", ports=ports, backend_port=5353))
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
