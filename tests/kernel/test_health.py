"""A Pod whose health check fails takes no calls until it succeeds again (P19): servers that hang, lie and refuse."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.lab import REMOTE, Lab, Manifest, PodProcess, answerer
from tests.lab.processes import run, wait_until

FAST = {"interval": "250ms"}
DNS, TCP, HTTP = 5300, 5301, 5302
KIND = {"dns": DNS, "tcp": TCP, "http": HTTP}


@pytest.fixture(scope="module")
def server(lab: Lab) -> PodProcess:
    """A Pod whose answers the test sets. It serves calls as well, at the port DNS."""
    made = lab.pod("server")
    made.do("serve_dns", addresses=[made.address, made.address6], port=DNS)
    made.do("serve_http", address=made.address, port=HTTP)
    return made


@pytest.fixture(autouse=True)
def healthy_again(server: PodProcess) -> Iterator[None]:
    """After each test the server answers correctly again."""
    yield
    server.do("answer_dns", how="right")
    server.do("answer_http", text="HTTP/1.1 200 OK\r\n\r\n")


def policy(check: dict[str, Any], name: str = "vip", **fields: Any) -> Manifest:
    found = manifests.policy(name, ports=((53, "UDP"),), backend_port=DNS, **fields)
    (kind,) = check.keys() & KIND.keys()
    found["spec"]["backend"]["healthCheck"] = {"port": KIND[kind], **FAST, **check}
    return found


def checked(lab: Lab, agent: Agent, client: PodProcess, server: PodProcess, check: dict[str, Any]) -> None:
    """Puts a policy with this check in force, and waits until its first check succeeded."""
    lab.write("pods", manifests.pod(server))
    lab.write("policies", policy(check))
    wait_until(lambda: agent.states() == {"vip": "Active"}, "active")
    assert answerer(client) == "server"
    wait_until(lambda: count(agent, "success") > 0, "the first check succeeded")


def count(agent: Agent, result: str, name: str = "vip") -> float:
    line = f'localredirect_health_checks_total{{policy="{name}",result="{result}"}}'
    return agent.metric(line) if line in agent.fetch("/metrics") else 0.0


def unhealthy(agent: Agent, name: str = "vip") -> float:
    return agent.metric(f'localredirect_unhealthy_backends{{policy="{name}"}}')


def goes_out(agent: Agent, why: str, pod: str = "server") -> None:
    """Waits until the Pod, the only one, is out of use. `why` is how its check failed."""
    reason = f"default/{pod} (its {why})"
    wait_until(
        lambda: agent.states().get("vip") == "NoBackend" and reason in agent.message("vip"),
        f"the Pod is out of use: {reason}",
    )


def comes_back(agent: Agent) -> None:
    wait_until(lambda: agent.states().get("vip") == "Active", "the Pod is in use again")


def test_a_pod_that_hangs_is_out_of_use_until_it_goes_on(
    lab: Lab, agent: Agent, client: PodProcess, server: PodProcess
) -> None:
    checked(lab, agent, client, server, {"dns": {}})
    os.kill(server.pid, signal.SIGSTOP)
    try:
        goes_out(agent, "dns check of port 5300 failed: no answer within 250 ms")
        assert answerer(client) == REMOTE
        assert unhealthy(agent) == 1
    finally:
        os.kill(server.pid, signal.SIGCONT)
    comes_back(agent)
    assert answerer(client) == "server"
    assert unhealthy(agent) == 0
    log = agent.log.read_text()
    assert log.count("default/server (its dns check of port 5300 failed") == 1


@pytest.mark.parametrize("how", ["another id", "another question", "no reply", "half a reply", "a reply to nothing"])
def test_a_datagram_that_is_no_reply_to_the_question_is_no_success(
    lab: Lab, agent: Agent, client: PodProcess, server: PodProcess, how: str
) -> None:
    checked(lab, agent, client, server, {"dns": {"name": "a.example"}})
    server.do("answer_dns", how=how)
    goes_out(
        agent, "dns check of port 5300 failed: no answer within 250 ms, what it sent is not a reply to the question"
    )
    server.do("answer_dns", how="strays, then a reply")
    comes_back(agent)


@pytest.mark.parametrize("how", ["SERVFAIL", "other capitals", "strays, then a reply"])
def test_any_reply_to_the_question_is_a_success(
    lab: Lab, agent: Agent, client: PodProcess, server: PodProcess, how: str
) -> None:
    server.do("answer_dns", how=how)
    patient = {"interval": "2s", "timeout": "2s"}  # so that a busy machine is not the reason of a failure
    checked(lab, agent, client, server, {"dns": {"name": "A.example", "type": "AAAA"}, **patient})
    assert count(agent, "failure") == 0


def test_a_port_where_nobody_listens_fails_at_once(
    lab: Lab, agent: Agent, client: PodProcess, server: PodProcess
) -> None:
    lab.write("pods", manifests.pod(server))
    for kind in KIND:
        lab.write("policies", policy({kind: {}, "port": 9, "interval": "300ms"}))
        goes_out(agent, f"{kind} check of port 9 failed: Connection refused")
    assert answerer(client) == REMOTE


def test_a_hanging_tcp_server_fails_once_its_accept_queue_is_full(
    lab: Lab, agent: Agent, client: PodProcess, server: PodProcess
) -> None:
    server.do("backlog", address=server.address, port=TCP, connections=1)
    checked(lab, agent, client, server, {"tcp": {}})
    goes_out(agent, "tcp check of port 5301 failed: no answer within 250 ms")
    server.do("accept_all")
    comes_back(agent)


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        ("HTTP/1.1 500 Internal Server Error\r\n\r\n", "the answer has status 500"),
        ("HTTP/1.0 404 Not Found\r\n\r\n", "the answer has status 404"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "the answer is not HTTP"),
        ("", "the connection was closed without an answer"),
    ],
)
def test_an_http_answer_that_is_no_success_takes_the_pod_out_of_use(
    lab: Lab, agent: Agent, client: PodProcess, server: PodProcess, answer: str, seen: str
) -> None:
    checked(lab, agent, client, server, {"http": {"path": "/ready?a=b"}})
    server.do("answer_http", text=answer)
    goes_out(agent, f"http check of port 5302 failed: {seen}")
    server.do("answer_http", text="HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n")
    comes_back(agent)
    (request,) = {request.partition("\r\n\r\n")[0] for request in server.do("requests")["requests"][-3:]}
    assert request.splitlines()[:2] == ["GET /ready?a=b HTTP/1.1", f"Host: {server.address}:{HTTP}"]


def test_a_check_that_cannot_be_sent_has_failed_and_says_why(lab: Lab, agent: Agent) -> None:
    run("ip", "-n", lab.node, "route", "add", "unreachable", "10.99.0.1/32")
    far = lab.pod("far")
    manifest = manifests.pod(far)
    manifest["status"] |= {"podIP": "10.99.0.1", "podIPs": [{"ip": "10.99.0.1"}]}
    lab.write("pods", manifest)
    for kind, port in KIND.items():
        lab.write("policies", policy({kind: {}}))
        goes_out(agent, f"{kind} check of port {port} failed: it cannot be sent (No route to host)", pod="far")


def test_two_policies_may_check_one_pod_differently(
    lab: Lab, agent: Agent, client: PodProcess, server: PodProcess
) -> None:
    checked(lab, agent, client, server, {"dns": {}})
    lab.write("policies", policy({"dns": {}}), policy({"http": {}}, "other", ip="169.254.0.91"))
    wait_until(lambda: count(agent, "success", "other") > 0, "both are checked")
    server.do("answer_dns", how="nothing")
    goes_out(agent, "dns check of port 5300 failed: no answer within 250 ms")
    agent.wait_states({"vip": "NoBackend", "other": "Active"})
    assert answerer(client) == REMOTE
    assert answerer(client, "169.254.0.91") == "server"


def test_other_pods_of_the_policy_go_on(lab: Lab, agent: Agent, client: PodProcess, server: PodProcess) -> None:
    second = lab.pod("second")
    second.do("serve_dns", addresses=[second.address], port=DNS)
    lab.write("pods", manifests.pod(server), manifests.pod(second))
    lab.write("policies", policy({"dns": {}}))
    wait_until(lambda: count(agent, "success") > 1, "both are checked")
    server.do("answer_dns", how="nothing")
    wait_until(lambda: "1 Ready Pod is out of use" in agent.message("vip"), "one is out of use")
    assert {answerer(client) for _ in range(8)} == {"second"}
    agent.wait_states({"vip": "Active"})


def test_without_its_check_or_with_another_the_policy_uses_the_pod_at_once(
    lab: Lab, agent: Agent, client: PodProcess, server: PodProcess
) -> None:
    checked(lab, agent, client, server, {"dns": {}})
    server.do("answer_dns", how="nothing")
    goes_out(agent, "dns check of port 5300 failed: no answer within 250 ms")
    lab.write("policies", policy({"http": {}}))
    comes_back(agent)
    lab.write("policies", policy({"dns": {}}))
    goes_out(agent, "dns check of port 5300 failed: no answer within 250 ms")
    lab.write("policies", manifests.policy("vip", backend_port=DNS))
    comes_back(agent)


def test_a_pod_that_is_replaced_counts_as_healthy_again(
    lab: Lab, agent: Agent, client: PodProcess, server: PodProcess
) -> None:
    checked(lab, agent, client, server, {"dns": {}, "interval": "300ms"})
    server.do("answer_dns", how="nothing")
    goes_out(agent, "dns check of port 5300 failed: no answer within 300 ms")
    successor = manifests.pod(server)
    successor["metadata"]["uid"] = "another"
    server.do("answer_dns", how="right")
    lab.write("pods", successor)
    comes_back(agent)


def test_pods_are_checked_at_an_address_of_the_frontends_family(lab: Lab, agent: Agent, server: PodProcess) -> None:
    lab.write("pods", manifests.pod(server))
    lab.write("policies", policy({"http": {}, "interval": "300ms"}, ip="fd00::10"))
    goes_out(agent, "http check of port 5302 failed: Connection refused")  # it serves HTTP at its IPv4 address only
    lab.write("policies", policy({"dns": {}, "interval": "300ms"}, ip="fd00::10"))
    comes_back(agent)
    wait_until(lambda: count(agent, "success") > 0, "the first check succeeded")


def test_an_agent_that_starts_while_a_pod_hangs_takes_it_out_of_use(
    lab: Lab, agent: Agent, client: PodProcess, server: PodProcess
) -> None:
    checked(lab, agent, client, server, {"dns": {}})
    agent.terminate()
    server.do("answer_dns", how="nothing")
    agent.start()
    goes_out(agent, "dns check of port 5300 failed: no answer within 250 ms")
    assert answerer(client) == REMOTE


@pytest.mark.parametrize("actor", ["HealthChecker", "ConflictResolver"])
def test_an_actor_that_is_restarted_changes_nothing(
    lab: Lab, agent: Agent, client: PodProcess, server: PodProcess, actor: str
) -> None:
    agent.terminate()
    agent.start(program=("-m", "tests.lab.failing_agent"))
    try:
        checked(lab, agent, client, server, {"dns": {}})
        server.do("answer_dns", how="nothing")
        goes_out(agent, "dns check of port 5300 failed: no answer within 250 ms")
        agent.fail(actor)
        wait_until(lambda: agent.restarts(actor) == 1, f"{actor} was restarted")
        failures = count(agent, "failure")
        wait_until(lambda: count(agent, "failure") > failures + 2, "the Pod is checked again")
        goes_out(agent, "dns check of port 5300 failed: no answer within 250 ms")
        assert answerer(client) == REMOTE
        server.do("answer_dns", how="right")
        comes_back(agent)
    finally:
        agent.terminate()
        agent.start()
