"""What one policy asks of this node, rule by rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address

import pytest

from actors.messages.reports import PolicyState
from actors.resolving.backends import namespaces_of
from actors.resolving.desired import Outcome, affinity_seconds, decide
from config.domain.addresses import Frontend, Protocol
from config.domain.ids import NamespacedName, PolicyKey, PolicyKind
from config.settings import RedirectSettings
from k8s.objects.claims import Loss
from k8s.objects.model import LabelSelector, Node, Pod, PolicySpec, Requirement, Service
from tests.unit.actors.policy_facts import NONE, policy_facts
from tests.unit.objects import KEY, SERVICE, TCP, UDP, address_spec, pod, policy, port, service_spec


def outcome(
    spec: PolicySpec | None,
    pods: Iterable[Pod] = (),
    *,
    service: Service | None = None,
    node: Node | None = None,
    loss: Loss | None = None,
    faults: tuple[str, ...] = (),
    qos_limit: int = 0,
    ended: Mapping[NamespacedName, str] = NONE,
    unhealthy: Mapping[NamespacedName, str] = NONE,
) -> Outcome:
    subject = policy(spec, faults=faults)
    nodes = [node] if node else []
    facts = policy_facts(subject, pods, service=service, nodes=nodes, loss=loss, ended=ended, unhealthy=unhealthy)
    return decide(facts, RedirectSettings(qos_limit=qos_limit))


def redirects(found: Outcome) -> dict[str, list[str]]:
    """What is asked of the kernel: frontend -> backends."""
    return {str(each.frontend): [str(backend) for backend in each.backends] for each in found.desired.frontends}


@pytest.mark.parametrize(
    ("candidate", "selected"),
    [
        pytest.param(pod(), True, id="labels match"),
        pytest.param(pod(app="web"), False, id="labels differ"),
        pytest.param(replace(pod(), labels=frozenset()), False, id="no labels"),
    ],
)
def test_p4_backends_are_selected_by_labels(candidate: Pod, selected: bool) -> None:
    found = outcome(address_spec(), [candidate])
    assert bool(redirects(found)) is selected
    assert bool(found.desired.excluded) is selected


@pytest.mark.parametrize(
    ("pods", "unusable"),
    [
        pytest.param([pod()], set(), id="usable"),
        pytest.param([pod(ready=False)], {"10.1.0.1:5353"}, id="not Ready"),
        pytest.param([pod(terminating=True)], {"10.1.0.1:5353"}, id="being deleted"),
        pytest.param([pod(finished=True)], set(), id="finished: as if it were gone"),
        pytest.param([pod(ready=False), pod("b", host_network=True)], set(), id="another Pod has its address"),
        pytest.param([pod(ready=False, app="web")], set(), id="not selected"),
    ],
)
def test_p20_pods_that_are_selected_and_not_usable_are_unusable_backends(pods: list[Pod], unusable: set[str]) -> None:
    found = outcome(address_spec(), pods).desired.unusable
    assert {str(endpoint) for _, endpoint in found} == unusable
    assert {str(frontend) for frontend, _ in found} <= {"169.254.0.90:53/UDP"}


def test_p20_a_backend_whose_container_ended_is_not_usable() -> None:
    found = outcome(address_spec(), [pod()], ended={pod().key: "a container of it has ended"})
    assert {str(endpoint) for _, endpoint in found.desired.unusable} == {"10.1.0.1:5353"}


def test_p20_a_policy_out_of_force_has_no_unusable_backends() -> None:
    assert not outcome(replace(address_spec(), enabled=False), [pod(ready=False)]).desired.unusable


def test_p4_expressions_are_applied() -> None:
    spec = replace(
        address_spec(), backend_selector=LabelSelector(match_expressions=(Requirement(key="app", operator="Exists"),))
    )
    assert redirects(outcome(spec, [pod(app="anything")])) == {"169.254.0.90:53/UDP": ["10.1.0.1:5353"]}


@pytest.mark.parametrize(
    ("candidate", "usable", "why"),
    [
        pytest.param(pod(), True, "", id="Ready"),
        pytest.param(pod(host_network=True), True, "", id="of the host network"),
        pytest.param(pod(ready=False), False, "(not Ready)", id="not Ready"),
        pytest.param(pod(terminating=True), False, "(being deleted)", id="being deleted"),
        pytest.param(replace(pod(), ips=()), False, "(no IP)", id="no IP"),
        pytest.param(pod("cache-1", "fd01::1"), False, "address family", id="another family"),
        pytest.param(pod(finished=True), False, "no Pod on this node matches", id="finished"),
    ],
)
def test_p5_a_usable_backend_is_ready_has_an_address_and_does_not_end(candidate: Pod, usable: bool, why: str) -> None:
    found = outcome(address_spec(), [candidate])
    assert redirects(found) == ({"169.254.0.90:53/UDP": ["10.1.0.1:5353"]} if usable else {})
    assert found.condition.state == (PolicyState.ACTIVE if usable else PolicyState.NO_BACKEND)
    assert why in found.condition.message


def test_a_ready_pod_that_is_out_of_use_is_no_backend_and_the_message_says_why() -> None:
    ended, usable = pod("cache-1", "10.1.0.1"), pod("cache-2", "10.1.0.2")
    reasons = {ended.key: "a container of it has ended"}
    found = outcome(address_spec(), [ended, usable], ended=reasons)
    assert redirects(found) == {"169.254.0.90:53/UDP": ["10.1.0.2:5353"]}
    assert found.condition.message == (
        "1 frontend redirected to 1 local Pod; 1 Ready Pod is out of use: "
        "kube-system/cache-1 (a container of it has ended)"
    )
    without = outcome(address_spec(), [ended], ended=reasons)
    assert without.condition.state == PolicyState.NO_BACKEND
    assert without.condition.message == (
        "1 Pod matches, none is usable: kube-system/cache-1 (a container of it has ended); clients take the normal way"
    )


def test_p5_each_family_has_its_backends() -> None:
    found = outcome(
        service_spec(port(53), backend=(port(5353),)),
        [pod("a", "10.1.0.1", "fd01::1"), pod("b", "10.1.0.2")],
        service=SERVICE,
    )
    assert redirects(found) == {
        "10.96.0.10:53/UDP": ["10.1.0.1:5353", "10.1.0.2:5353"],
        "[fd00::a]:53/UDP": ["[fd01::1]:5353"],
    }
    assert found.condition.usable_pods == 2


def test_p5_two_pods_with_one_ip_are_one_backend() -> None:
    found = outcome(address_spec(), [pod("a", "10.1.0.1", host_network=True), pod("b", "10.1.0.1", host_network=True)])
    assert redirects(found) == {"169.254.0.90:53/UDP": ["10.1.0.1:5353"]}
    assert len(found.desired.excluded) == 2


@pytest.mark.parametrize(
    ("spec", "allowed", "expected"),
    [
        pytest.param(service_spec(), {"*"}, {"kube-system"}, id="service: the Service's"),
        pytest.param(
            replace(service_spec(), backend_namespace="web"), {"dns"}, {"web"}, id="service: unless the policy says so"
        ),
        pytest.param(replace(address_spec(), backend_namespace="web"), {"*"}, {"web"}, id="address: the policy's"),
        pytest.param(address_spec(), {"*"}, None, id="address: all"),
        pytest.param(address_spec(), {"a", "b"}, {"a", "b"}, id="address: those that the configuration allows"),
    ],
)
def test_p6_backends_come_from_the_namespaces_of_service_policy_or_configuration(
    spec: PolicySpec, allowed: set[str], expected: set[str] | None
) -> None:
    assert namespaces_of(spec, RedirectSettings(address_backend_namespaces=frozenset(allowed))) == expected


def test_p7_a_frontend_without_backends_is_named_but_not_installed() -> None:
    found = outcome(service_spec(port(53), backend=(port(5353),)), [pod("a", "10.1.0.1")], service=SERVICE)
    assert list(redirects(found)) == ["10.96.0.10:53/UDP"]
    assert [str(each) for each in found.condition.frontends] == ["10.96.0.10:53/UDP", "[fd00::a]:53/UDP"]
    assert found.condition.message == "1 of 2 frontends redirected to 1 local Pod"


VIP = Frontend(ip_address("169.254.0.90"), 53, Protocol.UDP)
LOSS = Loss(PolicyKey(PolicyKind.BALANCING, "elder"), VIP)
ELSEWHERE = LabelSelector(match_labels=(("zone", "b"),))
STATES: Mapping[str, tuple[Outcome, PolicyState, str]] = {
    "Invalid, before all else": (
        outcome(None, [pod()], loss=LOSS, faults=("spec: is missing", "kind: is wrong")),
        PolicyState.INVALID,
        "spec: is missing; kind: is wrong",
    ),
    "Disabled, before Conflict": (
        outcome(replace(address_spec(), enabled=False), [pod()], loss=LOSS),
        PolicyState.DISABLED,
        "spec.enabled is false",
    ),
    "Conflict, before NodeNotSelected": (
        outcome(replace(address_spec(), node_selector=ELSEWHERE), [pod()], loss=LOSS),
        PolicyState.CONFLICT,
        "frontend 169.254.0.90:53/UDP is held by BalancingPolicy elder, which is older",
    ),
    "NodeNotSelected, before NoFrontend": (
        outcome(replace(service_spec(), node_selector=ELSEWHERE), [pod()]),
        PolicyState.NODE_NOT_SELECTED,
        "spec.config.nodeLabelSelector does not match this node's labels",
    ),
    "NoFrontend, before NoBackend": (
        outcome(service_spec()),
        PolicyState.NO_FRONTEND,
        "Service kube-system/dns does not exist",
    ),
    "NoBackend, no Pod": (
        outcome(address_spec()),
        PolicyState.NO_BACKEND,
        "no Pod on this node matches spec.backend.endpointSelector; clients take the normal way",
    ),
    "NoBackend, no Pod in the namespace": (
        outcome(service_spec(), service=SERVICE),
        PolicyState.NO_BACKEND,
        (
            "no Pod on this node matches spec.backend.endpointSelector in the namespaces that the agent searches "
            "(kube-system); set spec.backend.namespace to use another one; clients take the normal way"
        ),
    ),
    "NoBackend, one Pod": (
        outcome(address_spec(), [pod("a", ready=False)]),
        PolicyState.NO_BACKEND,
        "1 Pod matches, none is usable: kube-system/a (not Ready); clients take the normal way",
    ),
    "NoBackend, many Pods": (
        outcome(address_spec(), [pod(name, ready=False) for name in "dcba"]),
        PolicyState.NO_BACKEND,
        (
            "4 Pods match, none is usable: kube-system/a (not Ready), kube-system/b (not Ready), "
            "kube-system/c (not Ready), ...; clients take the normal way"
        ),
    ),
    "Active": (
        outcome(address_spec(), [pod("a"), pod("b", "10.1.0.2")]),
        PolicyState.ACTIVE,
        "1 frontend redirected to 2 local Pods",
    ),
    "Active, with a remark": (
        outcome(
            service_spec(port(53, UDP, "dns"), port(54, TCP, "dns-tcp")),
            [pod()],
            service=replace(SERVICE, cluster_ips=SERVICE.cluster_ips[:1]),
        ),
        PolicyState.ACTIVE,
        "1 frontend redirected to 1 local Pod; Service kube-system/dns has no port 54/TCP",
    ),
}


@pytest.mark.parametrize("case", STATES)
def test_each_situation_has_its_state_and_message(case: str) -> None:
    found, state, message = STATES[case]
    assert (found.condition.state, found.condition.message) == (state, message)
    assert found.condition.reason == state.value


@pytest.mark.parametrize("case", STATES)
def test_p9_a_policy_that_is_not_in_force_has_no_rows(case: str) -> None:
    found, state, _ = STATES[case]
    in_force = state in {PolicyState.ACTIVE, PolicyState.NO_BACKEND, PolicyState.NO_FRONTEND}
    assert found.desired.in_force is in_force
    assert in_force or not (found.desired.frontends or found.desired.excluded or found.condition.backends)
    assert (found.desired.key, found.desired.policy_id) == (KEY, 7)


@pytest.mark.parametrize(
    ("node", "selected"),
    [
        pytest.param(Node(name="n", labels=frozenset({("zone", "b")})), True, id="its labels match"),
        pytest.param(Node(name="n", labels=frozenset({("zone", "a")})), False, id="its labels differ"),
        pytest.param(None, False, id="a Node that is not known has no labels"),
    ],
)
def test_a_policy_works_on_the_nodes_that_it_selects(node: Node | None, selected: bool) -> None:
    found = outcome(replace(address_spec(), node_selector=ELSEWHERE), [pod()], node=node)
    assert found.desired.in_force is selected


@pytest.mark.parametrize(
    ("of_policy", "of_agent", "expected"), [(None, 0, 0), (None, 9, 9), (0, 9, 0), (5, 9, 5)], ids=str
)
def test_p11_the_limit_is_the_policys_else_the_agents(of_policy: int | None, of_agent: int, expected: int) -> None:
    found = outcome(replace(address_spec(), qos_limit=of_policy), qos_limit=of_agent)
    assert found.desired.limit == expected


@pytest.mark.parametrize(
    ("candidate", "excluded"),
    [
        pytest.param(pod(), True, id="usable"),
        pytest.param(pod(ready=False), True, id="not Ready"),
        pytest.param(pod(terminating=True), True, id="being deleted"),
        pytest.param(pod(host_network=True), True, id="of the host network"),
        pytest.param(replace(pod(), config_hash="abc"), True, id="static"),
        pytest.param(replace(pod(), ips=()), True, id="without an IP"),
        pytest.param(pod(finished=True), False, id="finished"),
        pytest.param(pod(app="web"), False, id="not selected"),
    ],
)
def test_p12_all_selected_pods_are_not_redirected(candidate: Pod, excluded: bool) -> None:
    found = outcome(address_spec(), [candidate])
    expected = [(candidate.key, candidate.uid, candidate.config_hash)] if excluded else []
    assert [(each.key, each.uid, each.config_hash) for each in found.desired.excluded] == expected


def test_p12_a_policy_may_redirect_its_own_backends() -> None:
    assert outcome(replace(address_spec(), skip_redirect_from_backend=False), [pod()]).desired.excluded == ()


STICKY = replace(SERVICE, client_ip_affinity=True, affinity_seconds=60)


@pytest.mark.parametrize(
    ("spec", "service", "expected"),
    [
        pytest.param(service_spec(), SERVICE, 0, id="Service: none"),
        pytest.param(service_spec(), STICKY, 60, id="Service: its own"),
        pytest.param(replace(service_spec(), affinity_seconds=5), STICKY, 5, id="Service: the policy's timeout"),
        pytest.param(replace(service_spec(), session_affinity=False), STICKY, 0, id="Service: the policy says None"),
        pytest.param(
            replace(service_spec(), session_affinity=True), SERVICE, 10800, id="Service: the policy says ClientIP"
        ),
        pytest.param(replace(service_spec(), affinity_seconds=5), SERVICE, 0, id="a timeout does not turn it on"),
        pytest.param(address_spec(), None, 0, id="address: none"),
        pytest.param(replace(address_spec(), session_affinity=True), None, 10800, id="address: the default timeout"),
        pytest.param(
            replace(address_spec(), session_affinity=True, affinity_seconds=5), None, 5, id="address: both given"
        ),
    ],
)
def test_p13_affinity_is_the_policys_or_else_the_services(
    spec: PolicySpec, service: Service | None, expected: int
) -> None:
    assert affinity_seconds(spec, service) == expected
    assert outcome(spec, service=service).desired.affinity_seconds == expected


@pytest.mark.parametrize("from_host", [True, False])
def test_p14_the_policy_says_whether_host_processes_are_redirected(from_host: bool) -> None:
    spec = replace(address_spec(), redirect_from_host=from_host)
    assert outcome(spec, [pod()]).desired.redirect_from_host is from_host


@pytest.mark.parametrize(
    ("shadow", "percentage", "message"),
    [
        pytest.param(False, 100, "1 frontend redirected to 1 local Pod", id="neither"),
        pytest.param(False, 10, "1 frontend redirected to 1 local Pod for 10 % of the clients", id="a percentage"),
        pytest.param(
            True,
            100,
            "1 frontend would be redirected to 1 local Pod; clients take the normal way: spec.config.mode is Shadow",
            id="Shadow",
        ),
        pytest.param(
            True,
            10,
            "1 frontend would be redirected to 1 local Pod for 10 % of the clients; "
            "clients take the normal way: spec.config.mode is Shadow",
            id="both",
        ),
    ],
)
def test_p21_mode_and_percentage_reach_the_kernel_and_people(shadow: bool, percentage: int, message: str) -> None:
    found = outcome(replace(address_spec(), shadow=shadow, percentage=percentage), [pod()])
    assert (found.desired.shadow, found.desired.percentage) == (shadow, percentage)
    assert (found.condition.state, found.condition.message) == (PolicyState.ACTIVE, message)
    assert (found.condition.shadow, found.condition.percentage) == (shadow, percentage)
    assert redirects(found) == {"169.254.0.90:53/UDP": ["10.1.0.1:5353"]}
