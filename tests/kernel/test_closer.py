"""Sockets whose backend is out of use are closed, so that their programs connect again; others are left alone (P20)."""

from __future__ import annotations

import socket

import pytest

from bpf.maps.closer_faults import describe_fault
from bpf.maps.rows import CloserFault
from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.closer import CLOSER_RIGHTS, Closer
from tests.lab.lab import CLUSTER_IP6, REMOTE, VIP, Lab, PodProcess
from tests.lab.processes import run, wait_until

ABORTED = {"reported": "ECONNABORTED"}


@pytest.fixture(scope="module")
def host(lab: Lab) -> PodProcess:
    return lab.host_process("closer-host")


def policies(ip: str = VIP) -> list[dict[str, object]]:
    return [
        manifests.policy("dns", ip=ip, ports=((53, "UDP"), (54, "UDP"))),
        manifests.policy("web", ip=ip, ports=((80, "TCP"),), backend_port=80),
    ]


def place(lab: Lab, agent: Agent, *pods: PodProcess, unready: tuple[PodProcess, ...] = (), ip: str = VIP) -> None:
    """Puts both policies in force over these Pods, and waits until the usable ones are their backends."""
    lab.write("policies", *policies(ip))
    lab.write("pods", *map(manifests.pod, pods), *(manifests.pod(each, ready=False) for each in unready))
    state = "Active" if pods else "NoBackend"
    family = "address6" if ":" in ip else "address"
    addresses = {getattr(each, family) for each in pods}
    wait_until(
        lambda: (
            agent.states() == {"dns": state, "web": state}
            and {row["address"] for row in agent.inspect("backends")} == addresses
        ),
        f"{addresses} are the backends",
    )


def connect(worker: PodProcess, key: str, address: str, port: int = 53, **how: object) -> str:
    """Connects a socket that the worker keeps by its key. Returns who answers on it."""
    worker.do("open", key=key, **how)
    assert "peer" in worker.do("connect", key=key, address=address, port=port)
    return str(worker.do("ask", key=key)["who"])


def still(worker: PodProcess, key: str, who: str) -> bool:
    return worker.do("ask", key=key).get("who") == who


@pytest.mark.parametrize(
    ("vip", "target", "family"),
    [
        pytest.param(VIP, VIP, socket.AF_INET, id="IPv4"),
        pytest.param(CLUSTER_IP6, CLUSTER_IP6, socket.AF_INET6, id="IPv6"),
        pytest.param(VIP, f"::ffff:{VIP}", socket.AF_INET6, id="IPv6 socket, mapped address"),
    ],
)
@pytest.mark.parametrize("loss", ["gone", "not Ready"])
@pytest.mark.usefixtures("closer")
def test_a_kept_udp_socket_gets_an_error_and_connects_to_the_next_backend(
    lab: Lab,
    agent: Agent,
    pods: list[PodProcess],
    client: PodProcess,
    host: PodProcess,
    vip: str,
    target: str,
    family: int,
    loss: str,
) -> None:
    old, new = pods[:2]
    place(lab, agent, old, ip=vip)
    for each in (client, host):
        assert connect(each, "kept", target, family=family) == old.name
    place(lab, agent, new, unready=() if loss == "gone" else (old,), ip=vip)
    for each in (client, host):
        assert each.do("await_error", key="kept") == ABORTED
        assert each.do("connect", key="kept", address=target, port=53) == {"peer": [target, 53]}
        assert still(each, "kept", new.name)


@pytest.mark.usefixtures("closer")
def test_without_another_backend_the_program_connects_the_normal_way(
    lab: Lab, agent: Agent, pods: list[PodProcess], client: PodProcess
) -> None:
    place(lab, agent, pods[0])
    assert connect(client, "kept", VIP) == pods[0].name
    place(lab, agent, unready=(pods[0],))
    assert client.do("await_error", key="kept") == ABORTED
    assert connect(client, "kept", VIP) == REMOTE


@pytest.mark.usefixtures("closer")
def test_a_busy_socket_gets_the_error_too(lab: Lab, agent: Agent, pods: list[PodProcess], client: PodProcess) -> None:
    place(lab, agent, pods[0])
    assert connect(client, "kept", VIP) == pods[0].name
    lab.write("pods", manifests.pod(pods[0], ready=False))
    wait_until(lambda: "error" in client.do("ask", key="kept"), "the socket that asks all the time has an error")
    assert connect(client, "kept", VIP) == REMOTE


@pytest.mark.usefixtures("closer")
def test_a_tcp_connection_ends_with_its_pod_and_not_before(
    lab: Lab, agent: Agent, pods: list[PodProcess], client: PodProcess
) -> None:
    old, new = pods[:2]
    place(lab, agent, old)
    assert connect(client, "tcp", VIP, 80, protocol="TCP") == old.name
    assert connect(client, "udp", VIP) == old.name
    place(lab, agent, new, unready=(old,))
    assert client.do("await_error", key="udp") == ABORTED
    assert still(client, "tcp", old.name)
    place(lab, agent, new)
    assert client.do("await_error", key="tcp") == ABORTED


@pytest.mark.usefixtures("closer")
def test_closed_sockets_are_counted_for_their_policy_and_the_closer_is_in_the_status(
    lab: Lab, agent: Agent, pods: list[PodProcess], client: PodProcess
) -> None:
    place(lab, agent, pods[0])
    before = agent.metric('localredirect_stale_sockets_closed_total{policy="dns"}')
    assert connect(client, "kept", VIP) == pods[0].name
    place(lab, agent, pods[1])
    assert client.do("await_error", key="kept") == ABORTED
    wait_until(
        lambda: agent.metric('localredirect_stale_sockets_closed_total{policy="dns"}') == before + 1,
        "the metrics count the socket",
    )
    assert agent.status()["closer"] == {"state": "running", "message": ""}
    assert agent.metric('localredirect_closer_state{state="running"}') == 1


def test_what_was_not_redirected_is_left_alone(
    lab: Lab, agent: Agent, closer: Closer, pods: list[PodProcess], client: PodProcess
) -> None:
    """Sockets that called the backend itself, from the beginning or later, and one that is not connected."""
    old, new = pods[:2]
    place(lab, agent, old)
    assert connect(client, "direct", old.address) == old.name
    assert connect(client, "direct tcp", old.address, 80, protocol="TCP") == old.name
    assert connect(client, "turned", VIP) == old.name
    assert client.do("connect", key="turned", address=old.address, port=53) == {"peer": [old.address, 53]}
    client.do("open", key="unconnected")
    assert client.do("ask", key="unconnected", address=VIP, port=53)["who"] == old.name
    assert connect(client, "kept", VIP) == old.name
    place(lab, agent, new)
    assert client.do("await_error", key="kept") == ABORTED
    closer.await_line("closed 1 socket to")
    for key in ("direct", "direct tcp", "turned"):
        assert still(client, key, old.name), key
    assert client.do("ask", key="unconnected", address=VIP, port=53)["who"] == new.name


@pytest.mark.usefixtures("closer")
def test_a_socket_that_asked_many_frontends_first_is_recognised(
    lab: Lab, agent: Agent, pods: list[PodProcess], client: PodProcess
) -> None:
    old, new = pods[:2]
    place(lab, agent, old)
    client.do("open", key="kept")
    assert client.do("ask", key="kept", address=VIP, port=54)["who"] == old.name
    client.do("connect", key="kept", address=VIP, port=53)
    assert still(client, "kept", old.name)
    place(lab, agent, new)
    assert client.do("await_error", key="kept") == ABORTED


def test_sockets_stay_with_a_pod_that_lives_when_its_policy_goes_and_are_closed_when_the_pod_goes(
    lab: Lab, agent: Agent, closer: Closer, pods: list[PodProcess], client: PodProcess
) -> None:
    kept, other = pods[:2]
    place(lab, agent, kept, other)
    while connect(client, "kept", VIP) != kept.name:
        pass
    while connect(client, "other", VIP) != other.name:
        pass
    lab.remove("policies")
    wait_until(lambda: agent.states() == {}, "the policies are deleted")
    lab.write("pods", manifests.pod(kept))
    assert client.do("await_error", key="other") == ABORTED  # so the closer has looked since then
    assert still(client, "kept", kept.name)
    lab.write("pods")
    assert client.do("await_error", key="kept") == ABORTED
    closer.await_line("closed 1 socket to", times=2)


def test_two_closers_close_each_socket_once(
    lab: Lab, agent: Agent, closer: Closer, pods: list[PodProcess], client: PodProcess
) -> None:
    second = Closer(lab, agent)
    second.await_line("closing stale sockets for build")
    place(lab, agent, pods[0])
    keys = [f"kept{i}" for i in range(20)]
    for key in keys:
        assert connect(client, key, VIP) == pods[0].name
    place(lab, agent, pods[1])
    for key in keys:
        assert client.do("await_error", key=key) == ABORTED
        assert connect(client, key, VIP) == pods[1].name
    assert (closer.process.poll(), second.terminate()) == (None, 0)
    assert closer.terminate() == 0
    assert all(still(client, key, pods[1].name) for key in keys)


def test_a_closer_that_was_away_closes_what_became_stale_meanwhile(
    lab: Lab, agent: Agent, closer: Closer, pods: list[PodProcess], client: PodProcess
) -> None:
    place(lab, agent, pods[0])
    assert connect(client, "udp", VIP) == pods[0].name
    assert connect(client, "tcp", VIP, 80, protocol="TCP") == pods[0].name
    closer.kill()
    place(lab, agent, pods[1])
    assert still(client, "udp", pods[0].name) and still(client, "tcp", pods[0].name)
    second = Closer(lab, agent)
    assert client.do("await_error", key="udp") == ABORTED
    assert client.do("await_error", key="tcp") == ABORTED
    second.kill()


@pytest.mark.usefixtures("closer")
def test_a_network_namespace_that_goes_away_does_not_stop_the_closer(
    lab: Lab, agent: Agent, pods: list[PodProcess], client: PodProcess
) -> None:
    place(lab, agent, pods[0])
    assert connect(client, "kept", VIP) == pods[0].name
    passing = lab.pod("passing")
    assert connect(passing, "kept", VIP) == pods[0].name
    passing.kill()
    run("ip", "netns", "del", passing.netns)
    place(lab, agent, pods[1])
    assert client.do("await_error", key="kept") == ABORTED


@pytest.mark.usefixtures("closer")
def test_a_file_that_is_no_namespace_does_not_stop_the_closer(
    lab: Lab, agent: Agent, pods: list[PodProcess], client: PodProcess
) -> None:
    """A runtime that was killed before it mounted the namespace leaves such a file in /run/netns. A mount that does not
    reach the closer looks the same."""
    left = make_file_among_namespaces(lab)
    place(lab, agent, pods[0])
    assert connect(client, "kept", VIP) == pods[0].name
    place(lab, agent, pods[1])
    assert client.do("await_error", key="kept") == ABORTED
    run("rm", left)


def make_file_among_namespaces(lab: Lab) -> str:
    path = f"/run/netns/{lab.prefix}-file"
    run("touch", path)
    return path


@pytest.mark.parametrize("missing", ["sys_admin", "net_admin"])
def test_without_its_right_the_closer_says_so_once_and_harms_nothing(
    lab: Lab, agent: Agent, pods: list[PodProcess], client: PodProcess, missing: str
) -> None:
    """It has CAP_BPF in place of the missing right, so that it can read the maps, and report in them what it lacks."""
    rights = CLOSER_RIGHTS[1].replace(missing, "bpf")
    limited = Closer(lab, agent, rights=("setpriv", rights))
    limited.await_line("the closer lacks CAP_SYS_ADMIN or CAP_NET_ADMIN")
    wait_until(lambda: agent.status()["closer"]["state"] == "failing", "the agent's status says so")
    assert describe_fault(CloserFault.NO_RIGHT) in agent.status()["closer"]["message"]
    place(lab, agent, pods[0])
    assert connect(client, "kept", VIP) == pods[0].name
    place(lab, agent, pods[1])
    assert still(client, "kept", pods[0].name)
    assert limited.lines_with("the closer lacks") == 1
    assert limited.terminate() == 0


WITHOUT_NAMESPACES = (
    *("unshare", "--mount", "--pid", "--kill-child", "--mount-proc"),
    *("sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "-"),
)
"""Starts a closer as in a container without a mount of /run/netns, where it sees its own processes only."""


def test_without_namespaces_the_closer_says_so_and_serves_the_node(
    lab: Lab, agent: Agent, pods: list[PodProcess], host: PodProcess
) -> None:
    closer = Closer(lab, agent, within=WITHOUT_NAMESPACES)
    place(lab, agent, pods[0])
    closer.await_line("the closer finds no network namespaces of Pods")
    assert connect(host, "kept", VIP) == pods[0].name
    place(lab, agent, pods[1])
    assert host.do("await_error", key="kept") == ABORTED
    assert closer.lines_with("the closer finds no network namespaces of Pods") == 1
    closer.kill()


def test_on_a_node_without_pods_the_closer_misses_no_namespaces(lab: Lab, agent: Agent, host: PodProcess) -> None:
    """There are none yet: the only backend has the node's own network."""
    host.do("serve", address=host.address, port=53, protocol="UDP")
    host.do("serve", address=host.address, port=80, protocol="TCP")
    closer = Closer(lab, agent, within=WITHOUT_NAMESPACES)
    place(lab, agent, host)
    closer.await_line("closing stale sockets for build")
    wait_until(lambda: agent.status()["closer"] == {"state": "running", "message": ""}, "the closer is running")
    assert closer.lines_with("finds no network namespaces") == 0
    closer.kill()


def test_a_closer_that_is_turned_off_does_nothing_until_it_is_stopped(lab: Lab) -> None:
    closer = Closer(lab, Agent(lab, {"redirect__close_stale_sockets": False}))
    closer.await_line("the closer does nothing")
    assert closer.terminate() == 0


def test_where_no_closer_runs_the_status_says_what_follows(agent: Agent) -> None:
    wait_until(
        lambda: agent.status()["closer"]["state"] == "absent", "the agent notices that the last closer has ended", 20
    )
    assert "sockets that programs keep open stay connected" in agent.status()["closer"]["message"]
