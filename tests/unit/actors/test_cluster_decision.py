"""What the controller decides on a policy for the whole cluster: acceptance, message and counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address

import pytest

from actors.controller.cluster_decision import Assessment, ClusterDecision
from actors.messages.reports import PoliciesResolved, PolicyState
from actors.messages.verdicts import Acceptance, ApplyVerdicts
from actors.resolving.decision import Decided
from config.domain.addresses import Frontend, Protocol
from config.domain.ids import NamespacedName, PolicyKey, PolicyKind
from config.settings import DatapathSettings, RedirectSettings
from k8s.objects.claims import Loss
from k8s.objects.model import LabelSelector, Node, Pod, PolicySpec, Service
from tests.unit.actors.policy_facts import policy_facts
from tests.unit.objects import KEY, SERVICE, address_spec, pod, policy, port, service_spec

ZONE_B = LabelSelector(match_labels=(("zone", "b"),))
NODES = [Node(name=f"n{number}", labels=frozenset({("zone", "ab"[number % 2])})) for number in range(4)]
"""Two of each zone: n1 and n3 are in b."""
DNS = service_spec(port(53), backend=(port(5353),))
LOSS = Loss(PolicyKey(PolicyKind.LOCAL_REDIRECT, "elder"), NamespacedName("kube-system", "dns"))
NORMAL = "clients take the normal way"
NO_POD = "no Pod matches spec.backend.endpointSelector"
SET_NAMESPACE = "set spec.backend.namespace to use another one"


def on(node: str, name: str = "", *ips: str, ready: bool = True, **pod_fields: bool) -> Pod:
    return replace(pod(name or f"pod-{node}", *ips, ready=ready, **pod_fields), node=node)  # type: ignore[arg-type]


def assess(
    spec: PolicySpec | None,
    pods: Iterable[Pod] = (),
    *,
    service: Service | None = SERVICE,
    nodes: Iterable[Node] = NODES,
    loss: Loss | None = None,
    datapath: DatapathSettings | None = None,
    namespaces: frozenset[str] = frozenset({"*"}),
    faults: tuple[str, ...] = (),
) -> Assessment:
    subject = replace(policy(spec, faults=faults), uid="u-1", generation=4)
    facts = policy_facts(subject, pods, service=service, nodes=nodes, loss=loss, datapath=datapath)
    return ClusterDecision(RedirectSettings(address_backend_namespaces=namespaces)).decide(facts)


def counts(found: Assessment) -> tuple[int, int]:
    return found.verdict.nodes_ready, found.verdict.nodes_selected


@pytest.mark.parametrize(
    ("pods", "ready"),
    [
        pytest.param([], 0, id="none"),
        pytest.param([on("n0")], 1, id="one"),
        pytest.param([on("n0", "a"), on("n0", "b")], 1, id="two on one node"),
        pytest.param([on("n0"), on("n1"), on("n2")], 3, id="three nodes"),
        pytest.param([on("n0", ready=False), on("n1")], 1, id="P5: not Ready"),
        pytest.param([on("n0", terminating=True), on("n1")], 1, id="P5: being deleted"),
        pytest.param([on("n0", finished=True)], 0, id="P5: finished"),
        pytest.param([replace(on("n0"), ips=())], 0, id="P5: no IP"),
        pytest.param([on("n0", host_network=True)], 1, id="P5: of the host network"),
        pytest.param([on("")], 0, id="not scheduled"),
        pytest.param([on("gone")], 0, id="on a node that is gone"),
        pytest.param([replace(on("n0"), labels=frozenset({("app", "web")}))], 0, id="P4: other labels"),
        pytest.param([on("n0", "a", "10.1.0.1"), on("n1", "b", "fd01::1")], 2, id="either family is enough"),
    ],
)
def test_nodes_with_a_usable_backend_are_counted(pods: list[Pod], ready: int) -> None:
    assert counts(assess(DNS, pods)) == (ready, 4)


@pytest.mark.parametrize(
    ("ip", "pod_ip", "ready"),
    [
        ("169.254.0.90", "10.1.0.1", 1),
        ("169.254.0.90", "fd01::1", 0),
        ("fd00::90", "fd01::1", 1),
        ("fd00::90", "10.1.0.1", 0),
    ],
)
def test_a_backend_needs_an_address_of_the_frontends_family(ip: str, pod_ip: str, ready: int) -> None:
    assert counts(assess(address_spec(ip), [on("n0", "a", pod_ip)])) == (ready, 4)


@pytest.mark.parametrize(
    ("selector", "pods", "expected"),
    [
        pytest.param(None, [on("n0"), on("n1")], (2, 4), id="all nodes"),
        pytest.param(ZONE_B, [on("n0"), on("n1")], (1, 2), id="those of a zone"),
        pytest.param(LabelSelector(match_labels=(("zone", "z"),)), [on("n0")], (0, 0), id="none"),
    ],
)
def test_nodes_that_the_policy_selects_are_counted(
    selector: LabelSelector | None, pods: list[Pod], expected: tuple[int, int]
) -> None:
    assert counts(assess(replace(DNS, node_selector=selector), pods)) == expected


def test_a_verdict_names_what_is_matched_and_the_frontends_of_both_families() -> None:
    of_service, of_address = assess(DNS).verdict, assess(address_spec("fd00::90")).verdict
    assert of_service.frontend == "kube-system/dns"
    assert of_service.frontends == ("10.96.0.10:53/UDP", "[fd00::a]:53/UDP")
    assert (of_address.frontend, of_address.frontends) == ("fd00::90", ("[fd00::90]:53/UDP",))


def test_a_family_that_the_agents_do_not_serve_is_no_frontend() -> None:
    found = assess(DNS, [on("n0", "a", "fd01::1")], datapath=DatapathSettings(ipv6=False))
    assert found.verdict.frontends == ("10.96.0.10:53/UDP",)
    assert counts(found) == (0, 4)


CASES = {
    "Invalid, before all else": (
        assess(None, [on("n0")], loss=LOSS, faults=("spec: is missing", "kind: is wrong")),
        PolicyState.INVALID,
        Acceptance.INVALID,
        "spec: is missing; kind: is wrong",
    ),
    "Disabled, before Conflict": (
        assess(replace(DNS, enabled=False), [on("n0")], loss=LOSS),
        PolicyState.DISABLED,
        Acceptance.DISABLED,
        "spec.enabled is false",
    ),
    "Conflict, with the winner's name": (
        assess(DNS, [on("n0")], loss=LOSS),
        PolicyState.CONFLICT,
        Acceptance.CONFLICT,
        "Service kube-system/dns is held by LocalRedirectPolicy elder, which is older",
    ),
    "no node, before no frontend": (
        assess(replace(DNS, node_selector=LabelSelector(match_labels=(("zone", "z"),))), service=None),
        PolicyState.NODE_NOT_SELECTED,
        Acceptance.ACCEPTED,
        f"spec.config.nodeLabelSelector matches no node; {NORMAL}",
    ),
    "an empty cluster": (
        assess(DNS, nodes=()),
        PolicyState.NODE_NOT_SELECTED,
        Acceptance.ACCEPTED,
        f"there is no node; {NORMAL}",
    ),
    "no Service": (
        assess(DNS, [on("n0")], service=None),
        PolicyState.NO_FRONTEND,
        Acceptance.ACCEPTED,
        f"Service kube-system/dns does not exist; {NORMAL}",
    ),
    "no Pod": (
        assess(DNS),
        PolicyState.NO_BACKEND,
        Acceptance.ACCEPTED,
        f"{NO_POD} in the namespaces that the agent searches (kube-system); {SET_NAMESPACE}; {NORMAL}",
    ),
    "no Pod anywhere": (
        assess(address_spec()),
        PolicyState.NO_BACKEND,
        Acceptance.ACCEPTED,
        f"{NO_POD}; {NORMAL}",
    ),
    "no Pod in the namespaces that are allowed": (
        assess(address_spec(), namespaces=frozenset({"b", "a"})),
        PolicyState.NO_BACKEND,
        Acceptance.ACCEPTED,
        f"{NO_POD} in the namespaces that the agent searches (a, b); {SET_NAMESPACE}; {NORMAL}",
    ),
    "no namespace is allowed": (
        assess(address_spec(), namespaces=frozenset()),
        PolicyState.NO_BACKEND,
        Acceptance.ACCEPTED,
        f"redirect.address_backend_namespaces of the configuration allows no namespace; {NORMAL}",
    ),
    "no Pod is Ready": (
        assess(DNS, [on("n0", ready=False), on("n1", ready=False)]),
        PolicyState.NO_BACKEND,
        Acceptance.ACCEPTED,
        f"no Pod that spec.backend.endpointSelector matches is Ready; {NORMAL}",
    ),
    "Pods of another family": (
        assess(address_spec(), [on("n0", "a", "fd01::1")]),
        PolicyState.NO_BACKEND,
        Acceptance.ACCEPTED,
        f"no usable Pod has an IP of the frontends' address family; {NORMAL}",
    ),
    "Pods on other nodes": (
        assess(replace(DNS, node_selector=ZONE_B), [on("n0")]),
        PolicyState.NO_BACKEND,
        Acceptance.ACCEPTED,
        f"no usable Pod is on a node that spec.config.nodeLabelSelector matches; {NORMAL}",
    ),
    "Active": (
        assess(DNS, [on("n0")]),
        PolicyState.ACTIVE,
        Acceptance.ACCEPTED,
        "2 frontends redirected on every node that has a usable Pod of its own",
    ),
    "Active in Shadow mode": (
        assess(replace(DNS, shadow=True), [on("n0")]),
        PolicyState.ACTIVE,
        Acceptance.ACCEPTED,
        (
            "2 frontends would be redirected on every node that has a usable Pod of its own; "
            f"{NORMAL}: spec.config.mode is Shadow"
        ),
    ),
    "Active, with a remark": (
        assess(
            service_spec(port(53, name="dns"), port(54, name="x"), backend=(port(5353, name="dns"), port(5, name="x"))),
            [on("n0")],
        ),
        PolicyState.ACTIVE,
        Acceptance.ACCEPTED,
        (
            "2 frontends redirected on every node that has a usable Pod of its own; "
            "Service kube-system/dns has no port 54/UDP"
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_situation_has_its_state_reason_and_message(case: str) -> None:
    found, state, reason, message = CASES[case]
    assert (found.condition.state, found.verdict.reason) == (state, reason)
    assert found.verdict.message == found.condition.message == message
    assert (found.verdict.key, found.verdict.uid, found.verdict.generation) == (KEY, "u-1", 4)
    assert found.condition.reason == reason.value


@pytest.mark.parametrize("case", CASES)
def test_a_policy_that_is_not_accepted_serves_no_node_and_has_no_frontend(case: str) -> None:
    found, _, reason, _ = CASES[case]
    if reason != Acceptance.ACCEPTED:
        assert (found.verdict.frontends, found.verdict.nodes_ready) == ((), 0)
        assert found.verdict.nodes_selected == (0 if reason == Acceptance.INVALID else 4)


def test_the_condition_has_the_mode_and_the_percentage_of_a_policy_in_force() -> None:
    found = assess(replace(DNS, shadow=True, percentage=5), [on("n0")]).condition
    assert (found.state, found.shadow, found.percentage) == (PolicyState.ACTIVE, True, 5)


def test_a_policy_out_of_force_has_no_mode_and_no_percentage() -> None:
    found = assess(replace(DNS, shadow=True, percentage=5), [on("n0")], loss=LOSS).condition
    assert (found.state, found.shadow, found.percentage) == (PolicyState.CONFLICT, False, 100)


@pytest.mark.parametrize(
    ("found", "named"),
    [
        pytest.param(assess(DNS, [on("n0")]), ("10.96.0.10:53/UDP", "[fd00::a]:53/UDP"), id="Active"),
        pytest.param(assess(DNS, loss=LOSS), ("10.96.0.10:53/UDP", "[fd00::a]:53/UDP"), id="Conflict"),
        pytest.param(assess(replace(address_spec(), enabled=False)), ("169.254.0.90:53/UDP",), id="Disabled"),
        pytest.param(
            assess(address_spec("fd00::90"), datapath=DatapathSettings(ipv6=False)), ("[fd00::90]:53/UDP",), id="IPv6"
        ),
        pytest.param(assess(DNS, service=None), (), id="no Service"),
        pytest.param(assess(None, faults=("spec: is missing",)), (), id="Invalid"),
    ],
)
def test_the_condition_names_the_frontends_that_the_policy_asks_for(found: Assessment, named: tuple[str, ...]) -> None:
    assert tuple(map(str, found.condition.named_frontends)) == named


def test_a_change_of_counts_does_not_change_the_message() -> None:
    few, many = assess(DNS, [on("n0")]), assess(DNS, [on(f"n{number}") for number in range(4)])
    assert few.verdict.message == many.verdict.message
    assert (few.condition.usable_pods, many.condition.usable_pods) == (1, 4)


def test_a_very_long_message_is_cut() -> None:
    found = assess(None, faults=tuple(f"spec.x{number}: " + "is wrong " * 200 for number in range(32)))
    assert len(found.verdict.message) == 32_000


def test_verdicts_go_to_the_status_writer_and_conditions_to_the_reporters() -> None:
    found = assess(DNS, [on("n0")])
    decided = Decided(complete=True, outcomes=(found,), removed=(KEY,), conflicts=2, received_at=1.0, as_of=0.5)
    sent = list(ClusterDecision(RedirectSettings()).messages(decided))
    resolved = PoliciesResolved(complete=True, conditions=(found.condition,), removed=(KEY,), conflicts=2)
    assert sent == [
        ("StatusWriter", ApplyVerdicts(complete=True, verdicts=(found.verdict,), removed=(KEY,))),
        ("StatusReporter", resolved),
        ("MetricsExporter", resolved),
    ]
    assert found.condition.frontends[0] == Frontend(ip_address("10.96.0.10"), 53, Protocol.UDP)
