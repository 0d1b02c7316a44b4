"""With others on the same node: another socket load balancer, and real DNS software."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.lab import manifests
from tests.lab.lab import REMOTE, ROOT, VIP, Agent, Lab, PodProcess, wait_until

NAME = "answer.test"
ADDRESS = "192.0.2.7"


@pytest.fixture
def foreign(lab: Lab) -> Iterator[None]:
    """Was there first, and translates the virtual IP to another one."""
    command = [sys.executable, "-m", "tests.lab.foreign", str(lab.cgroup), VIP, "169.254.0.91"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdin
    assert process.stdout.readline() == b"attached\n"
    yield
    process.stdin.close()
    process.wait(10)
    process.stdout.close()


@pytest.fixture
def agent(lab: Lab) -> Iterator[Agent]:
    made = lab.agent()
    yield made
    made.terminate()
    made.command("detach")


@pytest.mark.usefixtures("foreign")
def test_ours_sees_the_virtual_ip_before_a_program_that_was_there_first(
    lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess]
) -> None:
    lab.write("pod", manifests.pod(pods[0]))
    lab.write("policies", manifests.policy("vip", ports=((53, "UDP"), (80, "TCP")), backend_port=53))
    wait_until(lambda: agent.states() == {"vip": "Active"}, "active")
    assert client.do("udp", address=VIP, port=53) == {"who": "pod0", "source": [VIP, 53]}
    assert agent.status()["datapath"]["programs_before_us"] == {}


@pytest.mark.usefixtures("foreign")
def test_the_other_program_goes_on_with_what_we_leave_alone(agent: Agent, client: PodProcess) -> None:
    assert agent.states() == {}
    assert client.do("tcp", address=VIP, port=80)["peer"] == ["169.254.0.91", 80]


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
    join = 'echo $$ > "$0/cgroup.procs"; exec "$@"'  # dig, as a process of the client's Pod
    enter = ["sh", "-c", join, str(client.cgroup), "nsenter", f"--net=/run/netns/{lab.prefix}-{client.name}"]
    ask = ["dig", "+short", "+tries=1", "+time=3", transport, "@169.254.0.92", NAME, "A"]
    result = subprocess.run([*enter, *ask], capture_output=True, text=True, check=False)
    assert result.stdout.split() == [ADDRESS], result


def test_what_no_policy_names_is_answered_as_ever(agent: Agent, client: PodProcess) -> None:
    assert agent.states() == {}
    assert client.do("udp", address=VIP, port=53)["who"] == REMOTE
