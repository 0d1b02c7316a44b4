"""What one socket sees during its life: it keeps its backend, it is shown the frontend, or it passes (P15, P16)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.lab import REMOTE, VIP, Lab, PodProcess
from tests.lab.processes import run, wait_until

MANY_PORTS = tuple(range(1000, 1040))
"""More frontends than a socket has room for."""


def install(
    lab: Lab,
    agent: Agent,
    pods: list[PodProcess],
    *,
    ports: tuple[tuple[int, str], ...] = ((53, "UDP"),),
    backend_port: int = 53,
    **config: int | str,
) -> None:
    """Installs a policy for VIP with these Pods as backends."""
    lab.write("pods", *map(manifests.pod, pods))
    lab.write("policies", manifests.policy("vip", ports=ports, backend_port=backend_port, **config))  # type: ignore[arg-type]
    wanted = {(*port, config.get("sessionAffinityTimeoutSeconds", 0)) for port in ports}
    wait_until(
        lambda: (
            {(row["port"], row["protocol"], row["affinity_seconds"]) for row in agent.inspect("frontends")} == wanted
            and [row["qos_limit"] for row in agent.inspect("policies")] == [config.get("redirectQosLimit", 0)]
        ),
        "the policy is installed",
    )
    await_backends(agent, pods)


def await_backends(agent: Agent, pods: list[PodProcess]) -> None:
    names = {pod.address for pod in pods}
    wait_until(lambda: {row["address"] for row in agent.inspect("backends")} == names, f"{names} are the backends")


def by_name(pods: list[PodProcess], name: str) -> PodProcess:
    return next(pod for pod in pods if pod.name == name)


@pytest.fixture
def opened(client: PodProcess) -> PodProcess:
    """The client, with an unconnected UDP socket named `udp`."""
    client.do("open", key="udp")
    return client


# --- P16: a socket keeps its backend


def test_an_unconnected_socket_sends_everything_to_one_backend(
    lab: Lab, agent: Agent, opened: PodProcess, pods: list[PodProcess]
) -> None:
    install(lab, agent, pods)
    answers = opened.do("ask_all", key="udp", targets=[(VIP, 53)] * 60)["answers"]
    assert len({answer["who"] for answer in answers}) == 1
    assert {tuple(answer["source"]) for answer in answers} == {(VIP, 53)}


def test_connect_and_sendto_the_same_frontend_reach_one_backend(
    lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess]
) -> None:
    install(lab, agent, pods)
    for _ in range(20):
        client.do("open", key="udp")
        client.do("connect", key="udp", address=VIP, port=53)
        answers = client.do("ask_all", key="udp", targets=[(VIP, 53), ("", 0), (VIP, 53)])["answers"]
        assert len({answer["who"] for answer in answers}) == 1


def test_two_threads_that_send_the_first_datagrams_at_once_reach_one_backend(
    lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess]
) -> None:
    install(lab, agent, pods)
    answers = client.do("race", address=VIP, port=53, sockets=300)["answers"]
    assert [pair for pair in answers if pair[0] != pair[1]] == []
    assert len({pair[0] for pair in answers}) == len(pods), "sockets are spread over the Pods"


def test_a_socket_keeps_its_backend_through_changes_that_leave_it_in_use(
    lab: Lab, agent: Agent, opened: PodProcess, pods: list[PodProcess]
) -> None:
    install(lab, agent, pods)
    kept = opened.do("ask", key="udp", address=VIP, port=53)["who"]
    others = [pod for pod in pods if pod.name != kept]
    for leaving in others:
        remaining = [pod for pod in pods if pod is not leaving]
        lab.write("pods", *map(manifests.pod, remaining))
        await_backends(agent, remaining)
        assert opened.do("ask", key="udp", address=VIP, port=53)["who"] == kept
    lab.write("policies", manifests.policy("vip", redirectQosLimit=1000))
    wait_until(lambda: agent.inspect("policies")[0]["qos_limit"] == 1000, "the limit is installed")
    assert opened.do("ask", key="udp", address=VIP, port=53)["who"] == kept


def test_a_socket_whose_backend_goes_gets_another_and_late_replies_still_show_the_frontend(
    lab: Lab, agent: Agent, opened: PodProcess, pods: list[PodProcess]
) -> None:
    install(lab, agent, pods)
    first = opened.do("ask", key="udp", address=VIP, port=53)["who"]
    by_name(pods, first).do("hold_answers")
    opened.do("send", key="udp", address=VIP, port=53)
    remaining = [pod for pod in pods if pod.name != first]
    lab.write("pods", *map(manifests.pod, remaining))
    await_backends(agent, remaining)
    second = opened.do("ask", key="udp", address=VIP, port=53)
    assert second["who"] != first
    assert second["source"] == [VIP, 53]
    by_name(pods, first).do("give_answers")
    assert opened.do("receive", key="udp") == {"who": first, "source": [VIP, 53]}


def test_affinity_does_not_move_a_socket(lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess]) -> None:
    install(lab, agent, pods, sessionAffinity="ClientIP", sessionAffinityTimeoutSeconds=1)
    client.do("open", key="udp")
    kept = client.do("ask", key="udp", address=VIP, port=53)["who"]
    wait_until(lambda: agent.inspect("affinity") == [], "the affinity expires", 5)
    answers = client.do("ask_all", key="udp", targets=[(VIP, 53)] * 30)["answers"]
    assert {answer["who"] for answer in answers} == {kept}


# --- P15: what the program sees


@pytest.mark.parametrize("out_of_use", [False, True], ids=["in use", "out of use"])
@pytest.mark.parametrize("connected", [False, True], ids=["unconnected", "connected"])
def test_a_socket_that_calls_the_backend_itself_sees_the_backend(
    lab: Lab, agent: Agent, opened: PodProcess, pods: list[PodProcess], connected: bool, out_of_use: bool
) -> None:
    install(lab, agent, pods[:2])
    turn = "connect" if connected else "send"
    opened.do(turn, key="udp", address=VIP, port=53)
    who = opened.do("ask" if connected else "receive", key="udp")["who"]
    backend = by_name(pods, who)
    if out_of_use:
        lab.write("pods", *(manifests.pod(pod) for pod in pods[:2] if pod is not backend))
        await_backends(agent, [pod for pod in pods[:2] if pod is not backend])
    opened.do(turn, key="udp", address=backend.address, port=53)
    if connected:
        opened.do("send", key="udp")
    assert opened.do("receive", key="udp") == {"who": who, "source": [backend.address, 53]}
    if connected:
        assert opened.do("connect", key="udp", address=backend.address, port=53)["peer"] == [backend.address, 53]
    opened.do(turn, key="udp", address=VIP, port=53)
    if connected:
        opened.do("send", key="udp")
    assert opened.do("receive", key="udp")["source"] == [VIP, 53]


@pytest.mark.parametrize(
    ("family", "address"),
    [(socket.AF_INET, VIP), (socket.AF_INET6, f"::ffff:{VIP}")],
    ids=["IPv4", "mapped"],
)
def test_an_mptcp_socket_sees_the_frontend(
    lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess], family: int, address: str
) -> None:
    install(lab, agent, pods, ports=((80, "TCP"),), backend_port=80)
    client.do("open", key="tcp", family=family, protocol="TCP", mptcp=True)
    assert client.do("connect", key="tcp", address=address, port=80)["peer"] == [address, 80]
    assert client.do("ask", key="tcp")["source"] == [address, 80]


# --- calls that pass


@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
def test_a_socket_that_is_bound_to_a_device_passes(
    lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess], protocol: str
) -> None:
    port = 53 if protocol == "UDP" else 80
    install(lab, agent, pods, ports=((port, protocol),), backend_port=port)
    passed = passes(agent, "bound")
    client.do("open", key="bound", protocol=protocol, device="eth0")
    assert client.do("connect", key="bound", address=VIP, port=port)["peer"] == [VIP, port]
    assert client.do("ask", key="bound") == {"who": REMOTE, "source": [VIP, port]}
    assert passes(agent, "bound") == passed + 1


def passes(agent: Agent, reason: str) -> int:
    return int(agent.inspect("policies")[0]["passes"][reason])


@pytest.fixture(scope="module")
def many_ports(lab: Lab) -> None:
    for port in MANY_PORTS:
        lab.remote.do("serve", address=VIP, port=port, protocol="UDP")


@pytest.mark.usefixtures("many_ports")
def test_calls_beyond_a_sockets_room_for_frontends_pass_and_do_not_count_against_the_limit(
    lab: Lab, agent: Agent, opened: PodProcess, pods: list[PodProcess]
) -> None:
    """The limit allows the redirects of both rounds within one second, but not all the calls of one round."""
    ports = tuple((port, "UDP") for port in MANY_PORTS)
    install(lab, agent, pods, ports=ports, redirectQosLimit=len(MANY_PORTS) - 2)
    (before,) = agent.inspect("policies")
    answers = opened.do("ask_all", key="udp", targets=[(VIP, port) for port in MANY_PORTS])["answers"]
    assert {answer["source"][0] for answer in answers} == {VIP}, "one of the frontends that share the backend"
    (after,) = agent.inspect("policies")
    redirects = after["redirects"] - before["redirects"]
    assert 16 <= redirects <= (len(MANY_PORTS) - 2) / 2
    assert sum(answer["who"] != REMOTE for answer in answers) == redirects
    assert passes(agent, "no_memory") == len(MANY_PORTS) - redirects
    assert passes(agent, "qos") == 0
    again = opened.do("ask_all", key="udp", targets=[(VIP, port) for port in MANY_PORTS])["answers"]
    assert [answer["who"] for answer in again] == [answer["who"] for answer in answers]


@contextmanager
def no_option_memory(netns: str) -> Iterator[None]:
    """Makes the kernel refuse every socket storage. Before kernel 6.9 the setting applies to the whole machine."""
    enter = ["nsenter", f"--net=/run/netns/{netns}"]
    setting = "/proc/sys/net/core/optmem_max"
    if "optmem_max" not in run(*enter, "ls", "/proc/sys/net/core").split():
        enter = []
    former = run(*enter, "cat", setting).strip()
    run(*enter, "sh", "-c", f"echo 0 > {setting}")
    try:
        yield
    finally:
        run(*enter, "sh", "-c", f"echo {former} > {setting}")


@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
def test_if_the_kernel_refuses_the_storage_calls_pass_and_do_not_count_against_the_limit(
    lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess], protocol: str
) -> None:
    port = 53 if protocol == "UDP" else 80
    install(lab, agent, pods, ports=((port, protocol),), backend_port=port, redirectQosLimit=1)
    before = passes(agent, "no_memory")
    call = "udp" if protocol == "UDP" else "tcp"
    with no_option_memory(client.netns):
        for _ in range(3):
            assert client.do(call, address=VIP, port=port)["who"] == REMOTE
    assert passes(agent, "no_memory") == before + 3
    assert passes(agent, "qos") == 0


def test_processes_in_the_agents_own_cgroup_are_not_redirected(
    lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess]
) -> None:
    install(lab, agent, pods)
    agent.terminate()
    beside = lab.process("beside-the-agent", cgroup="agent")
    assert beside.do("udp", address=VIP, port=53)["who"] != REMOTE
    agent.start(within=("sh", "-c", 'echo $$ > "$0"; exec "$@"', str(lab.cgroup / "agent" / "cgroup.procs")))
    try:
        assert beside.do("udp", address=VIP, port=53)["who"] == REMOTE
        assert client.do("udp", address=VIP, port=53)["who"] != REMOTE, (agent.inspect("policies"), agent.status())
    finally:
        agent.terminate()
        agent.start()
