"""`run.py controller` on a real API server, with the rights that k8s/install.yaml gives it and no others."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from config.domain.ids import PolicyKey, PolicyKind
from k8s.api.client import Api
from k8s.objects.model import PolicyStatus
from k8s.status.api_writer import ApiWriter
from k8s.status.write_requests import StatusWrite, WriteAnswer, WriteResult
from tests.cluster import hollow
from tests.cluster.api import Json
from tests.cluster.conftest import apply_crds
from tests.cluster.control_plane import ControlPlane
from tests.cluster.controller import Controller, install_rights
from tests.cluster.install_yaml import NAMESPACE
from tests.lab.processes import wait_until

LR = "/apis/balancing.elf.io/v1beta1/localredirectpolicies"
PODS = "/api/v1/namespaces/default/pods"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/balancing-controller"
SOON = 15.0
"""Seconds to wait for what usually takes two at most."""
APP = {"app": "cache"}
PORT = {"port": "53", "protocol": "UDP"}
_hosts = itertools.count(1)

Start = Callable[..., Controller]


@pytest.fixture(scope="module")
def cluster() -> Iterator[ControlPlane]:
    """A cluster for this module only, since these tests stop its API server."""
    with ControlPlane() as made:
        apply_crds(made)
        yield made


@pytest.fixture(scope="module")
def kubeconfig(cluster: ControlPlane) -> Path:
    return install_rights(cluster)


@pytest.fixture
def start(cluster: ControlPlane, kubeconfig: Path) -> Iterator[Start]:
    made: list[Controller] = []

    def build(**sections: Any) -> Controller:
        made.append(Controller(cluster, kubeconfig, **sections))
        return made[-1]

    yield build
    for each in made:
        if each.process.poll() is None:
            assert each.stop() == 0
        assert "Traceback" not in each.log(), each.log()


@pytest.fixture
def controller(start: Start) -> Controller:
    made = start(redirect={"address_cidrs": ["169.254.0.0/16", "fd00::/8"]})
    made.wait_until_leading()
    return made


@pytest.fixture(autouse=True)
def empty_cluster(cluster: ControlPlane) -> Iterator[None]:
    yield
    cluster.kubectl("delete", "--all", "--force", "--grace-period=0", "--wait=false", "pods,nodes,lr,events,services")


def virtual_ip() -> str:
    return f"169.254.1.{next(_hosts)}"


def policy(name: str, ip: str, **spec: Any) -> Json:
    return {
        "apiVersion": "balancing.elf.io/v1beta1",
        "kind": "LocalRedirectPolicy",
        "metadata": {"name": name},
        "spec": {
            "frontend": {"addressMatcher": {"ip": ip, "toPorts": [PORT]}},
            "backend": {"endpointSelector": {"matchLabels": APP}, "toPorts": [PORT]},
            **spec,
        },
    }


def status(cluster: ControlPlane, name: str) -> Json:
    return dict(cluster.api.get(f"{LR}/{name}").get("status") or {})


def condition(cluster: ControlPlane, name: str) -> Json:
    (found,) = status(cluster, name).get("conditions") or [{}]
    return dict(found)


def wait_for_nodes(cluster: ControlPlane, name: str, nodes: str, seconds: float = SOON) -> None:
    wait_until(
        lambda: status(cluster, name).get("nodes") == nodes,
        lambda: f"{name} has {nodes}: {json.dumps(cluster.api.get(f'{LR}/{name}'), indent=1)}",
        seconds,
    )


def wait_for_reason(cluster: ControlPlane, name: str, reason: str, seconds: float = SOON) -> Json:
    wait_until(
        lambda: condition(cluster, name).get("reason") == reason,
        lambda: f"{name} is {reason}: {condition(cluster, name)}",
        seconds,
    )
    return condition(cluster, name)


def events(cluster: ControlPlane, name: str) -> list[tuple[str, str]]:
    """Type and reason of the policy's Events, the oldest first."""
    items = cluster.api.get("/api/v1/namespaces/default/events")["items"]
    of_policy = [each for each in items if each["involvedObject"]["name"] == name]
    return [(each["type"], each["reason"]) for each in sorted(of_policy, key=lambda each: each["metadata"]["name"])]


def wait_for_events(cluster: ControlPlane, name: str, wanted: list[tuple[str, str]]) -> None:
    """Waits, because an Event is written after the status that it reports."""
    wait_until(lambda: events(cluster, name) == wanted, lambda: f"{wanted}, not {events(cluster, name)}", SOON)


def report(cluster: ControlPlane, name: str, *, ready: bool) -> None:
    hollow.report(cluster.api, cluster.api.get(f"{PODS}/{name}"), ready=ready)


# --- the status of one policy -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("controller")
def test_the_status_of_a_service_policy_follows_its_service_and_pods(cluster: ControlPlane) -> None:
    nodes = hollow.add_nodes(cluster.api, 3)
    pods = hollow.add_pods(cluster.api, nodes[:2], labels=APP)
    matcher = {"serviceMatcher": {"serviceName": "dns", "namespace": "default"}}
    made = cluster.api.create(LR, policy("p", "", frontend=matcher))
    accepted = wait_for_reason(cluster, "p", "Accepted")
    assert accepted["message"] == "Service default/dns does not exist; clients take the normal way"
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}]
    cluster.api.create(
        "/api/v1/namespaces/default/services",
        {"metadata": {"name": "dns"}, "spec": {"ports": ports, "ipFamilyPolicy": "RequireDualStack"}},
    )
    wait_for_nodes(cluster, "p", "2/3")
    addresses = cluster.api.get("/api/v1/namespaces/default/services/dns")["spec"]["clusterIPs"]
    found = status(cluster, "p")
    assert (found["nodesReady"], found["nodesSelected"], found["frontend"]) == (2, 3, "default/dns")
    assert found["frontends"] == [f"[{each}]:53/UDP" if ":" in each else f"{each}:53/UDP" for each in addresses]
    accepted = condition(cluster, "p")
    assert (accepted["type"], accepted["status"], accepted["observedGeneration"]) == ("Accepted", "True", 1)
    assert accepted["message"] == "2 frontends redirected on every node that has a usable Pod of its own"
    assert accepted["lastTransitionTime"] >= made["metadata"]["creationTimestamp"]
    heading, line = cluster.kubectl("get", "lr", "p").stdout.splitlines()
    assert heading.split() == ["NAME", "FRONTEND", "NODES", "ACCEPTED", "AGE"]
    assert line.split()[:4] == ["p", "default/dns", "2/3", "True"]

    report(cluster, pods[0], ready=False)
    wait_for_nodes(cluster, "p", "1/3")
    cluster.api.delete(f"{PODS}/{pods[1]}", grace_seconds=0)
    wait_for_nodes(cluster, "p", "0/3")
    assert condition(cluster, "p")["message"].startswith("no Pod that spec.backend.endpointSelector matches is Ready")
    report(cluster, pods[0], ready=True)
    wait_for_nodes(cluster, "p", "1/3")
    assert condition(cluster, "p")["lastTransitionTime"] == accepted["lastTransitionTime"], (
        "it was accepted all the time"
    )
    wait_for_events(cluster, "p", [("Normal", "Accepted")])


@pytest.mark.usefixtures("controller")
def test_only_nodes_that_a_policy_selects_are_counted(cluster: ControlPlane) -> None:
    near = hollow.add_nodes(cluster.api, 2, prefix="near", labels={"zone": "near"})
    far = hollow.add_nodes(cluster.api, 2, prefix="far", labels={"zone": "far"})
    hollow.add_pods(cluster.api, [near[0], *far], labels=APP)
    selector = {"nodeLabelSelector": {"matchLabels": {"zone": "near"}}}
    cluster.apply([policy("near", virtual_ip(), config=selector), policy("all", virtual_ip())])
    wait_for_nodes(cluster, "near", "1/2")
    wait_for_nodes(cluster, "all", "3/4")
    cluster.api.patch(f"/api/v1/nodes/{far[0]}", {"metadata": {"labels": {"zone": "near"}}})
    wait_for_nodes(cluster, "near", "2/3")
    cluster.api.delete(f"/api/v1/nodes/{near[0]}")
    wait_for_nodes(cluster, "near", "1/2")
    wait_for_nodes(cluster, "all", "2/3")
    hollow.add_nodes(cluster.api, 1, prefix="new", labels={"zone": "near"})
    wait_for_nodes(cluster, "near", "1/3")
    wait_for_nodes(cluster, "all", "2/4")


@pytest.mark.usefixtures("controller")
def test_a_conflict_is_seen_on_the_loser_who_takes_over_when_the_winner_goes(cluster: ControlPlane) -> None:
    hollow.add_pods(cluster.api, hollow.add_nodes(cluster.api, 1), labels=APP)
    ip = virtual_ip()
    cluster.apply(policy("winner", ip))
    wait_for_nodes(cluster, "winner", "1/1")
    time.sleep(1.1)  # creation times are whole seconds
    cluster.apply(policy("loser", ip))
    lost = wait_for_reason(cluster, "loser", "Conflict")
    assert lost["status"] == "False"
    assert lost["message"] == f"frontend {ip}:53/UDP is held by LocalRedirectPolicy winner, which is older"
    found = status(cluster, "loser")
    assert (found["nodes"], found["frontends"], found["frontend"]) == ("0/1", [], ip)
    described = cluster.kubectl("describe", "lr", "loser").stdout
    assert "LocalRedirectPolicy winner, which is older" in described
    assert "Warning  Conflict" in described
    assert status(cluster, "winner")["nodes"] == "1/1"

    time.sleep(1.1)  # transition times are whole seconds, too
    cluster.api.delete(f"{LR}/winner")
    won = wait_for_reason(cluster, "loser", "Accepted")
    wait_for_nodes(cluster, "loser", "1/1")
    assert won["lastTransitionTime"] > lost["lastTransitionTime"]
    wait_for_events(cluster, "loser", [("Warning", "Conflict"), ("Normal", "Accepted")])


@pytest.mark.usefixtures("controller")
def test_invalid_and_disabled_policies_are_reported_until_they_are_changed(cluster: ControlPlane) -> None:
    hollow.add_pods(cluster.api, hollow.add_nodes(cluster.api, 1), labels=APP)
    ip = virtual_ip()
    cluster.apply([policy("p", "192.0.2.1"), policy("off", ip, enabled=False), policy("on", ip)])
    invalid = wait_for_reason(cluster, "p", "Invalid")
    assert invalid["status"] == "False"
    assert invalid["message"] == (
        "spec.frontend.addressMatcher.ip: 192.0.2.1 is outside redirect.address_cidrs of the agent's configuration "
        "(allowed: 169.254.0.0/16, fd00::/8)"
    )
    assert wait_for_reason(cluster, "off", "Disabled")["message"] == "spec.enabled is false"
    wait_for_nodes(cluster, "on", "1/1")
    assert status(cluster, "off")["nodes"] == "0/1"

    cluster.apply(policy("p", virtual_ip()))
    valid = wait_for_reason(cluster, "p", "Accepted")
    assert (valid["status"], valid["observedGeneration"]) == ("True", 2)
    cluster.apply(policy("off", ip))
    wait_for_reason(cluster, "off", "Accepted")
    wait_for_reason(cluster, "on", "Conflict")
    wait_until(lambda: len(events(cluster, "on")) == 2, lambda: f"two events: {events(cluster, 'on')}", SOON)
    wait_for_events(cluster, "p", [("Warning", "Invalid"), ("Normal", "Accepted")])
    wait_for_events(cluster, "off", [("Normal", "Disabled"), ("Normal", "Accepted")])


@pytest.mark.usefixtures("controller")
def test_a_policy_that_is_changed_is_judged_again(cluster: ControlPlane) -> None:
    nodes = hollow.add_nodes(cluster.api, 2)
    hollow.add_pods(cluster.api, nodes[:1], labels=APP)
    hollow.add_pods(cluster.api, nodes, prefix="web", labels={"app": "web"})
    ip = virtual_ip()
    cluster.apply(policy("p", ip))
    wait_for_nodes(cluster, "p", "1/2")
    backend = {"endpointSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}}
    seen = {str(status(cluster, "p")["nodes"])}
    cluster.apply(policy("p", ip, backend={**backend, "toPorts": [PORT]}))

    def arrived() -> bool:
        seen.add(str(status(cluster, "p")["nodes"]))
        return bool(condition(cluster, "p")["observedGeneration"] == 2)

    wait_until(arrived, "the new version is judged", SOON)
    assert seen | {status(cluster, "p")["nodes"]} == {"1/2", "2/2"}, "no 0/2 in between, while its Pods are looked up"
    cluster.api.delete(f"{LR}/p")
    cluster.apply(policy("p", ip))
    wait_for_nodes(cluster, "p", "1/2")


def test_many_policies_are_watched_by_one_watch(cluster: ControlPlane, controller: Controller) -> None:
    nodes = hollow.add_nodes(cluster.api, 2)
    for number in range(25):
        hollow.add_pods(cluster.api, nodes[: 1 + number % 2], prefix=f"p{number}", labels={"app": f"a{number}"})

    def of_app(number: int) -> Json:
        backend = {"endpointSelector": {"matchLabels": {"app": f"a{number}"}}, "toPorts": [PORT]}
        return policy(f"p{number}", virtual_ip(), backend=backend)

    cluster.apply([of_app(number) for number in range(25)])
    for number in range(25):
        wait_for_nodes(cluster, f"p{number}", f"{1 + number % 2}/2")
    for number in range(10):
        cluster.api.delete(f"{LR}/p{number}")
    cluster.api.delete(f"{PODS}/p20-{nodes[0]}", grace_seconds=0)
    wait_for_nodes(cluster, "p20", "0/2")
    wait_for_nodes(cluster, "p21", "2/2")
    assert controller.writes("status", "refused") == 0


@pytest.mark.usefixtures("controller")
def test_a_status_that_somebody_overwrites_is_corrected(cluster: ControlPlane) -> None:
    hollow.add_nodes(cluster.api, 1)
    cluster.apply(policy("p", virtual_ip()))
    wait_for_nodes(cluster, "p", "0/1")
    cluster.api.patch(f"{LR}/p/status", {"status": {"nodes": "7/7", "conditions": []}})
    wait_for_nodes(cluster, "p", "0/1")
    wait_for_reason(cluster, "p", "Accepted")


# --- several processes, and how they end ------------------------------------------------------------------------------


def test_a_controller_that_restarts_writes_nothing(cluster: ControlPlane, start: Start) -> None:
    hollow.add_pods(cluster.api, hollow.add_nodes(cluster.api, 3), labels=APP)
    ip = virtual_ip()
    cluster.apply([policy("a", ip), policy("b", ip), policy("c", virtual_ip(), enabled=False)])
    first = start()
    first.wait_until_leading()
    wait_for_nodes(cluster, "a", "3/3")
    wait_for_reason(cluster, "b", "Conflict")
    wait_for_reason(cluster, "c", "Disabled")
    wait_until(lambda: first.writes("event") == 3, "the events are written", SOON)
    assert first.stop() == 0
    before = versions(cluster), cluster.api.get("/api/v1/namespaces/default/events")["metadata"]
    second = start()
    second.wait_until_leading(10)  # quickly, since the first one has released its Lease
    time.sleep(3)
    assert versions(cluster) == before[0]
    assert (second.writes("status"), second.writes("event")) == (0, 0)
    assert len(events(cluster, "b")) == 1


def versions(cluster: ControlPlane) -> dict[str, str]:
    return {each["metadata"]["name"]: each["metadata"]["resourceVersion"] for each in cluster.api.get(LR)["items"]}


def test_a_process_that_stands_by_takes_over(cluster: ControlPlane, start: Start) -> None:
    hollow.add_nodes(cluster.api, 1)
    first = start()
    first.wait_until_leading()
    second = start()
    wait_until(lambda: second.get("/readyz") == (200, "ok\n"), lambda: f"the second is ready\n{second.log()}", SOON)
    holder = cluster.api.get(LEASE)["spec"]["holderIdentity"]
    wait_until(lambda: second.status()["leader"] == {"leads": False, "holder": holder}, "the second stands by", SOON)
    assert second.get("/healthz") == (200, "ok\n")
    time.sleep(1)
    assert not second.has_received_objects(), "a controller that stands by watches nothing"

    first.kill()
    killed_at = time.monotonic()
    cluster.apply(policy("p", virtual_ip()))
    second.wait_until_leading()
    taken_over = time.monotonic() - killed_at
    assert 8 < taken_over < 20
    wait_for_nodes(cluster, "p", "0/1")

    third = start()
    wait_until(lambda: third.get("/readyz")[0] == 200, "the third is ready", SOON)
    stopped_at = time.monotonic()
    assert second.stop() == 0
    third.wait_until_leading()
    released = time.monotonic() - stopped_at
    assert released < 8, "a Lease that was released is taken at once"
    print(f"\nleader killed: the next one leads after {taken_over:.1f} s; stopped: after {released:.1f} s")


def test_one_of_two_installations_leads_and_the_other_says_so_until_it_takes_over(
    cluster: ControlPlane, start: Start
) -> None:
    first = start()
    first.wait_until_leading()
    holder = cluster.api.get(LEASE)["spec"]["holderIdentity"]
    second = Controller(cluster, install_rights(cluster, "second"), namespace="second")
    standing_by = {"leads": False, "holder": f"{NAMESPACE}/{holder}"}
    wait_until(lambda: second.status().get("leader") == standing_by, lambda: f"it stands by\n{second.log()}", 30)
    assert f"the installation in namespace {NAMESPACE} leads" in second.log()
    assert second.get("/readyz")[0] == 200
    assert first.stop() == 0
    second.wait_until_leading()
    assert second.stop() == 0
    for log in (first.log(), second.log()):
        assert "is missing" not in log, "the rights suffice"


def test_a_leader_whose_lease_another_has_taken_ends_with_1(cluster: ControlPlane, start: Start) -> None:
    first = start()
    first.wait_until_leading()
    taken = {"holderIdentity": "somebody", "leaseDurationSeconds": 15, "renewTime": "2020-01-01T00:00:00.000000Z"}
    cluster.api.patch(LEASE, {"spec": taken})
    assert first.process.wait(10) == 1
    assert "somebody leads now" in first.log()
    cluster.api.delete(LEASE)


def test_after_an_outage_of_the_api_server_the_controller_goes_on_without_needless_writes(
    cluster: ControlPlane, start: Start
) -> None:
    nodes = hollow.add_nodes(cluster.api, 3)
    pods = hollow.add_pods(cluster.api, nodes, labels=APP)
    cluster.apply([policy("p", virtual_ip()), policy("q", virtual_ip(), enabled=False)])
    running = start()
    running.wait_until_leading()
    wait_for_nodes(cluster, "p", "3/3")
    wait_for_reason(cluster, "q", "Disabled")
    before = versions(cluster)
    cluster.stop_apiserver()
    for _ in range(13):  # longer than a leader leads without an answer
        assert running.get("/healthz")[0] == 200
        time.sleep(1)
    assert not running.leads()
    cluster.start_apiserver()
    running.wait_until_leading()
    assert versions(cluster) == before, "nothing had changed"
    report(cluster, pods[0], ready=False)
    wait_for_nodes(cluster, "p", "2/3")
    assert running.process.poll() is None
    cpu = running.usage()[1]
    assert cpu < 20, "it retried without back-off"
    print(f"\nCPU of all: {cpu:.2f} s")


def test_an_api_server_that_does_not_answer_does_not_delay_the_stop(cluster: ControlPlane, start: Start) -> None:
    running = start()
    running.wait_until_leading()
    cluster.pause_apiserver()
    try:
        time.sleep(3)
        assert running.get("/healthz")[0] == 200
        assert running.stop() == 0
    finally:
        cluster.resume_apiserver()


# --- 200 nodes --------------------------------------------------------------------------------------------------------


def test_two_hundred_pods_that_become_ready_one_after_another_cost_few_writes(
    cluster: ControlPlane, start: Start
) -> None:
    nodes = hollow.add_nodes(cluster.api, 200)
    pods = hollow.add_pods(cluster.api, nodes, labels=APP, ready=False)
    hollow.add_pods(cluster.api, nodes, prefix="other", labels={"app": "other"})
    running = start()
    running.wait_until_leading()
    cluster.apply([policy("p", virtual_ip()), policy("q", virtual_ip())])
    wait_for_nodes(cluster, "p", "0/200")
    wait_for_nodes(cluster, "q", "0/200")
    memory, cpu = running.usage()
    writes = running.writes("status")
    began = time.monotonic()
    for name in pods:
        report(cluster, name, ready=True)
        time.sleep(0.02)
    for name in ("p", "q"):
        wait_for_nodes(cluster, name, "200/200")
    seconds = time.monotonic() - began
    time.sleep(0.5)  # the last write is counted once it is answered
    written = running.writes("status") - writes
    used = running.usage()[1] - cpu
    for name in "pq":
        assert (status(cluster, name)["nodesReady"], status(cluster, name)["nodesSelected"]) == (200, 200)
    # For each policy there is one write when the counts begin to change, then one every two seconds.
    assert written <= 2 * (2 + seconds / 2), f"{written} writes in {seconds:.1f} s"
    assert running.writes("event") == 2, "a changed count is no Event"

    idle_cpu, idle_began = running.usage()[1], time.monotonic()
    time.sleep(10)
    idle = (running.usage()[1] - idle_cpu) / (time.monotonic() - idle_began)
    assert running.writes("status") - writes == written
    print(
        f"\n200 nodes, 400 Pods, 2 policies: 200 Pods Ready in {seconds:.1f} s took {written} writes and {used:.2f} s "
        f"of CPU; {memory:.0f} MB resident before, {running.usage()[0]:.0f} MB after; idle {idle:.2%} of a core"
    )


def test_a_status_for_a_former_policy_of_the_same_name_is_refused(cluster: ControlPlane, kubeconfig: Path) -> None:
    api = ApiWriter(Api(str(kubeconfig)), "test")
    former = cluster.api.create(LR, policy("p", virtual_ip()))["metadata"]["uid"]
    cluster.api.delete(f"{LR}/p")
    present = cluster.api.create(LR, policy("p", virtual_ip()))["metadata"]["uid"]
    key = PolicyKey(PolicyKind.LOCAL_REDIRECT, "p")

    def write(uid: str) -> WriteAnswer:
        new = PolicyStatus(
            accepted="True", reason="Accepted", message="m", transitioned_at="2026-01-31T12:00:00Z", nodes=uid
        )
        new = replace(new, nodes_ready=0, nodes_selected=0)
        return api.write(StatusWrite(key=key, uid=uid, status=new, former_reason="", decided_at=""))

    refused = write(former)
    assert (refused.result, refused.gone) == (WriteResult.REFUSED, True), refused
    assert status(cluster, "p") == {}
    assert write(present).result == WriteResult.WRITTEN
    assert status(cluster, "p")["nodes"] == present
    cluster.api.delete(f"{LR}/p")
    assert write(present).gone


def test_events_may_be_created_only_where_those_of_policies_are_kept(cluster: ControlPlane, kubeconfig: Path) -> None:
    for namespace, may in (("default", "yes"), ("kube-system", "no"), (NAMESPACE, "no")):
        answer = cluster.kubectl(
            "auth", "can-i", "create", "events", "-n", namespace, kubeconfig=kubeconfig, check=False
        )
        assert answer.stdout.strip() == may, namespace


def test_the_controller_may_write_nothing_of_a_policy_but_its_status(cluster: ControlPlane, kubeconfig: Path) -> None:
    cluster.apply(policy("p", virtual_ip()))
    for command in (("annotate", "lr", "p", "a=b"), ("delete", "lr", "p"), ("create", "configmap", "c")):
        answer = cluster.kubectl(*command, kubeconfig=kubeconfig, check=False)
        assert answer.returncode != 0 and "forbidden" in answer.stderr.lower()
