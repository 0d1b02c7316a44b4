"""The resolver's state: the order of facts does not matter, and a change decides again only what it may concern."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.controller.cluster_decision import Assessment, ClusterDecision
from actors.messages.facts import SourceName
from actors.messages.reports import PolicyState
from actors.resolving.agent_decision import AgentDecision
from actors.resolving.desired import Outcome, decide
from actors.resolving.resolver_state import ResolverState
from config.domain.ids import PolicyKey, PolicyKind
from config.settings import DatapathSettings, RedirectSettings
from k8s.objects.model import LabelSelector, Node, Pod, Policy, PolicySpec, Requirement, Service
from tests.unit.objects import NAME, SELECTOR, SERVICE, address_spec, pod, policy, port, service_spec

ZONE_B = LabelSelector(match_labels=(("zone", "b"),))
NODE = Node(name="n", labels=frozenset({("zone", "b")}))
DNS = service_spec(port(53), backend=(port(5353),))


AgentState = ResolverState[Outcome]


def new_state(*, namespaces: frozenset[str] = frozenset({"*"})) -> AgentState:
    redirect = RedirectSettings(address_backend_namespaces=namespaces)
    return ResolverState(datapath=DatapathSettings(), redirect=redirect, decision=AgentDecision(redirect))


Fact = Policy | Service | Pod | Node


S = TypeVar("S", bound=ResolverState[Any])


def tell(state: S, *facts: Fact, listing: int = 1) -> S:
    for fact in facts:
        match fact:
            case Policy():
                state.facts.upsert_policy(fact, listing)
            case Service():
                state.facts.upsert_service(fact, listing)
            case Pod():
                state.facts.upsert_pod(fact, listing)
            case Node():
                state.facts.upsert_node(fact, listing)
    return state


def forget(state: ResolverState[Any], fact: Fact) -> None:
    match fact:
        case Policy():
            state.facts.remove_policy(fact.key)
        case Service():
            state.facts.remove_service(fact.key)
        case Pod():
            state.facts.remove_pod(fact.key)
        case Node():
            state.facts.remove_node(fact.name)


def states(state: AgentState) -> dict[str, PolicyState]:
    state.decide_changes()
    return {each.condition.key.name: each.condition.state for each in state.all_outcomes()}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param((policy(address_spec()), pod()), {"p": "Active"}, id="policy and Pod"),
        pytest.param((policy(DNS), SERVICE, pod()), {"p": "Active"}, id="policy, Service and Pod"),
        pytest.param((policy(DNS), pod()), {"p": "NoFrontend"}, id="no Service"),
        pytest.param((policy(DNS), SERVICE), {"p": "NoBackend"}, id="no Pod"),
        pytest.param(
            (policy(replace(address_spec(), node_selector=ZONE_B)), pod(), NODE), {"p": "Active"}, id="policy and Node"
        ),
        pytest.param(
            (
                policy(address_spec(), name="old", policy_id=1),
                policy(address_spec(), name="young", policy_id=2, created="2026-01-01T00:00:00Z"),
                pod(),
            ),
            {"old": "Active", "young": "Conflict"},
            id="P8: one frontend",
        ),
        pytest.param(
            (
                policy(DNS, name="old", policy_id=1),
                policy(address_spec("10.96.0.10"), name="young", policy_id=2, created="2026-01-01T00:00:00Z"),
                SERVICE,
            ),
            {"old": "NoBackend", "young": "Conflict"},
            id="P8: the cluster IP of a Service that another policy matches",
        ),
        pytest.param(
            (
                policy(PolicySpec(frontend=DNS.frontend), name="b", kind=PolicyKind.BALANCING),
                policy(DNS, name="l", created="2026-01-01T00:00:00Z"),
                SERVICE,
            ),
            {"l": "Conflict"},
            id="P8: a BalancingPolicy, which has no outcome of its own",
        ),
    ],
)
def test_the_order_of_facts_does_not_matter(facts: tuple[Fact, ...], expected: dict[str, str]) -> None:
    for order, between in itertools.product(itertools.permutations(facts), (True, False)):
        state = new_state()
        for fact in order:
            tell(state, fact)
            if between:
                state.decide_changes()
        assert states(state) == expected


@pytest.mark.parametrize(
    ("before", "gone", "expected"),
    [
        pytest.param((policy(address_spec()), pod()), 1, {"p": "NoBackend"}, id="P7: the Pod"),
        pytest.param((policy(DNS), pod(), SERVICE), 2, {"p": "NoFrontend"}, id="P1: the Service"),
        pytest.param(
            (policy(replace(address_spec(), node_selector=ZONE_B)), pod(), NODE), 2, {"p": "NodeNotSelected"}, id="Node"
        ),
        pytest.param(
            (
                policy(address_spec(), name="a", policy_id=1),
                policy(address_spec(), name="b", policy_id=2),
                pod(),
            ),
            0,
            {"b": "Active"},
            id="P8: the winner",
        ),
        pytest.param((policy(address_spec()),), 0, {}, id="the policy"),
    ],
)
def test_a_removed_fact_no_longer_counts(before: tuple[Fact, ...], gone: int, expected: dict[str, str]) -> None:
    state = tell(new_state(), *before)
    state.decide_changes()
    forget(state, before[gone])
    assert states(state) == expected


def test_p9_a_policy_that_becomes_invalid_is_not_in_force_and_claims_nothing() -> None:
    state = tell(
        new_state(),
        policy(address_spec(), name="a", policy_id=1),
        policy(address_spec(), name="b", policy_id=2),
        pod(),
    )
    assert states(state) == {"a": "Active", "b": "Conflict"}
    tell(state, policy(None, name="a", policy_id=1, faults=("spec: is missing",)))
    assert states(state) == {"a": "Invalid", "b": "Active"}


def test_p6_pods_of_other_namespaces_are_not_backends() -> None:
    stranger = pod(namespace="web")
    assert states(tell(new_state(), policy(DNS), SERVICE, stranger)) == {"p": "NoBackend"}
    assert states(tell(new_state(), policy(address_spec()), stranger)) == {"p": "Active"}
    allowed = new_state(namespaces=frozenset({"kube-system"}))
    assert states(tell(allowed, policy(address_spec()), stranger)) == {"p": "NoBackend"}


def test_a_pod_that_is_relabelled_leaves_one_policy_and_joins_another() -> None:
    other = replace(address_spec("169.254.0.91"), backend_selector=LabelSelector(match_labels=(("app", "web"),)))
    state = tell(
        new_state(), policy(address_spec(), name="cache", policy_id=1), policy(other, name="web", policy_id=2), pod()
    )
    assert states(state) == {"cache": "Active", "web": "NoBackend"}
    tell(state, pod(app="web"))
    assert states(state) == {"cache": "NoBackend", "web": "Active"}


def test_p4_a_selector_without_labels_considers_every_pod() -> None:
    absent = LabelSelector(match_expressions=(Requirement(key="app", operator="DoesNotExist"),))
    state = tell(new_state(), policy(replace(address_spec(), backend_selector=absent)), pod())
    assert states(state) == {"p": "NoBackend"}
    tell(state, replace(pod(), labels=frozenset()))
    assert states(state) == {"p": "Active"}


@pytest.mark.parametrize(
    ("source", "kept", "expected"),
    [
        pytest.param(SourceName.POLICIES, (), {}, id="policies"),
        pytest.param(SourceName.SERVICES, (), {"p": "NoFrontend"}, id="services"),
        pytest.param(SourceName.ENDPOINTS, (NODE,), {"p": "NoBackend"}, id="Pods"),
        pytest.param(SourceName.ENDPOINTS, (pod(),), {"p": "NodeNotSelected"}, id="the Node"),
        pytest.param(SourceName.ENDPOINTS, (pod(), NODE), {"p": "Active"}, id="nothing is gone"),
    ],
)
def test_a_new_listing_removes_what_it_does_not_have(
    source: SourceName, kept: tuple[Fact, ...], expected: dict[str, str]
) -> None:
    state = tell(new_state(), policy(replace(DNS, node_selector=ZONE_B)), SERVICE, pod(), NODE, listing=1)
    assert states(state) == {"p": "Active"}
    tell(state, *kept, listing=2)
    assert states(state) == {"p": "Active"}, "nothing goes before the listing has ended"
    state.facts.end_listing(source, 2)
    assert states(state) == expected


def test_services_that_no_policy_names_are_dropped() -> None:
    state = tell(new_state(), policy(DNS), SERVICE, pod())
    assert state.facts.named_services == {NAME}
    state.facts.remove_policy(policy(DNS).key)
    assert state.facts.named_services == frozenset()
    state.facts.drop_unnamed_services()
    assert states(tell(state, policy(DNS))) == {"p": "NoFrontend"}


def test_the_same_facts_again_change_nothing() -> None:
    facts = (policy(DNS), SERVICE, pod(), NODE)
    state = tell(new_state(), *facts)
    assert state.decide_changes().outcomes
    tell(state, *facts, listing=2)
    changes = state.decide_changes()
    assert (changes.outcomes, changes.removed) == ((), ())


def test_a_policy_that_came_and_went_between_decisions_is_not_reported() -> None:
    state = tell(new_state(), policy(DNS))
    state.facts.remove_policy(policy(DNS).key)
    changes = state.decide_changes()
    assert (changes.outcomes, changes.removed) == ((), ())


@pytest.mark.parametrize(
    ("change", "decided"),
    [
        pytest.param(lambda state: tell(state, pod("p7", "10.1.0.7", app="app7", ready=False)), 4, id="a Pod"),
        pytest.param(lambda state: tell(state, pod("p7", "10.1.0.7", app="nobody")), 4, id="a Pod that leaves"),
        pytest.param(lambda state: tell(state, pod("new", "10.1.1.7", app="nobody")), 0, id="a Pod of no policy"),
        pytest.param(lambda state: tell(state, NODE), 0, id="the Node, which no policy asks for"),
        pytest.param(
            lambda state: state.facts.remove_policy(PolicyKey(PolicyKind.LOCAL_REDIRECT, "p7")), 0, id="a policy"
        ),
    ],
)
def test_work_grows_with_what_changed(change: Callable[[AgentState], object], decided: int) -> None:
    state = new_state()
    for number in range(250):
        tell(state, pod(f"p{number}", f"10.1.0.{number}", app=f"app{number}"))
    for number in range(1000):
        selector = replace(SELECTOR, match_labels=(("app", f"app{number % 250}"),))
        spec = replace(address_spec(f"10.200.{number // 250}.{number % 250}"), backend_selector=selector)
        tell(state, policy(spec, name=f"p{number}", policy_id=number + 1))
    state.decide_changes()
    with patch("actors.resolving.agent_decision.decide", wraps=decide) as counted:
        change(state)
        state.decide_changes()
    assert counted.call_count == decided


# --- the controller's decision over the same facts --------------------------------------------------------------------


ClusterState = ResolverState[Assessment]


def new_cluster() -> ClusterState:
    redirect = RedirectSettings()
    return ResolverState(datapath=DatapathSettings(), redirect=redirect, decision=ClusterDecision(redirect))


def on(node: str, *, app: str = "cache", ready: bool = True, name: str = "") -> Pod:
    return replace(pod(name or f"{app}-{node}", "10.1.0.1", app=app, ready=ready), node=node)


def nodes_of(state: ClusterState) -> dict[str, tuple[int, int]]:
    state.decide_changes()
    found = [each.verdict for each in state.all_outcomes()]
    return {each.key.name: (each.nodes_ready, each.nodes_selected) for each in found}


A, B = Node(name="a"), Node(name="b", labels=frozenset({("zone", "b")}))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param((policy(address_spec()), on("a"), on("b"), A, B), {"p": (2, 2)}, id="everywhere"),
        pytest.param((policy(address_spec()), on("a"), on("b"), B), {"p": (1, 1)}, id="one Node is not known"),
        pytest.param(
            (policy(replace(address_spec(), node_selector=ZONE_B)), on("a"), on("b"), A, B), {"p": (1, 1)}, id="a zone"
        ),
        pytest.param((policy(DNS), SERVICE, on("a"), A, B), {"p": (1, 2)}, id="a Service"),
    ],
)
def test_the_clusters_nodes_are_counted_whatever_the_order(
    facts: tuple[Fact, ...], expected: dict[str, tuple[int, int]]
) -> None:
    for order in itertools.permutations(facts):
        state = new_cluster()
        for fact in order:
            tell(state, fact)
            state.decide_changes()
        assert nodes_of(state) == expected


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        pytest.param(B, {"all": (1, 1), "zone": (0, 0)}, id="a Node goes"),
        pytest.param(on("b"), {"all": (1, 2), "zone": (0, 1)}, id="a Pod goes"),
    ],
)
def test_what_goes_is_no_longer_counted(fact: Fact, expected: dict[str, tuple[int, int]]) -> None:
    zone = replace(address_spec("169.254.0.91"), node_selector=ZONE_B)
    policies = (policy(address_spec(), name="all", policy_id=1), policy(zone, name="zone", policy_id=2))
    state = tell(new_cluster(), *policies, on("a"), on("b"), A, B)
    assert nodes_of(state) == {"all": (2, 2), "zone": (1, 1)}
    forget(state, fact)
    assert nodes_of(state) == expected


def test_a_node_that_is_relabelled_joins_a_policys_nodes() -> None:
    state = tell(new_cluster(), policy(replace(address_spec(), node_selector=ZONE_B)), on("a"), A, B)
    assert nodes_of(state) == {"p": (0, 1)}
    tell(state, replace(A, labels=B.labels))
    assert nodes_of(state) == {"p": (1, 2)}


def test_agents_and_controller_agree_on_who_is_in_force() -> None:
    facts = (
        policy(address_spec(), name="old", policy_id=1),
        policy(address_spec(), name="young", policy_id=2, created="2026-01-01T00:00:00Z"),
        policy(None, name="wrong", policy_id=3, faults=("spec: is missing",)),
        policy(replace(address_spec(), enabled=False), name="off", policy_id=4),
    )
    agent, cluster = tell(new_state(), *facts), tell(new_cluster(), *facts)
    agent.decide_changes()
    cluster.decide_changes()
    out = {PolicyState.CONFLICT, PolicyState.INVALID, PolicyState.DISABLED}
    by_agent = {each.condition.key: each.condition for each in agent.all_outcomes()}
    for each in cluster.all_outcomes():
        of_agent = by_agent[each.condition.key]
        assert (each.condition.state in out) == (of_agent.state in out)
        if of_agent.state in out:
            assert (each.condition.state, each.condition.message) == (of_agent.state, of_agent.message)


def test_a_policy_that_waits_is_decided_later_and_holds_up_no_other() -> None:
    state = tell(new_cluster(), policy(address_spec(), name="a", policy_id=1), A)
    state.decide_changes()
    tell(state, policy(replace(address_spec(), enabled=False), name="a", policy_id=1))
    tell(state, policy(address_spec("169.254.0.91"), name="b", policy_id=2))
    first = state.decide_changes(is_known=lambda each: each.key.name != "a")
    assert [each.verdict.key.name for each in first.outcomes] == ["b"]
    assert {each.verdict.key.name: each.verdict.reason for each in state.all_outcomes()} == {
        "a": "Accepted",
        "b": "Accepted",
    }
    second = state.decide_changes()
    assert [(each.verdict.key.name, each.verdict.reason) for each in second.outcomes] == [("a", "Disabled")]


@pytest.mark.parametrize(
    ("change", "decided"),
    [
        pytest.param(lambda state: tell(state, on("n7", app="app7", ready=False)), 4, id="a Pod"),
        pytest.param(lambda state: tell(state, on("n7", app="nobody")), 0, id="a Pod of no policy"),
        pytest.param(lambda state: tell(state, replace(A, name="n7", labels=B.labels)), 0, id="a Node's labels"),
        pytest.param(lambda state: tell(state, A), 1000, id="a Node that comes: a count of every policy"),
    ],
)
def test_in_the_controller_too_work_grows_with_what_changed(
    change: Callable[[ClusterState], object], decided: int
) -> None:
    state = new_cluster()
    for number in range(50):
        tell(state, Node(name=f"n{number}"), *(on(f"n{number}", app=f"app{app}") for app in range(250) if app % 5 == 0))
    tell(state, on("n7", app="app7"))
    for number in range(1000):
        selector = replace(SELECTOR, match_labels=(("app", f"app{number % 250}"),))
        spec = replace(address_spec(f"10.200.{number // 250}.{number % 250}"), backend_selector=selector)
        tell(state, policy(spec, name=f"p{number}", policy_id=number + 1))
    state.decide_changes()
    with patch.object(ClusterDecision, "decide", autospec=True, side_effect=ClusterDecision.decide) as counted:
        change(state)
        state.decide_changes()
    assert counted.call_count == decided


_POLICIES = st.builds(
    policy,
    st.sampled_from(
        [
            None,
            DNS,
            service_spec(),
            address_spec(),
            address_spec("10.96.0.10"),
            replace(address_spec(), enabled=False),
            replace(address_spec(), node_selector=ZONE_B),
            replace(
                DNS,
                backend_selector=LabelSelector(match_expressions=(Requirement(key="app", operator="Exists"),)),
                backend_namespace="web",
            ),
        ]
    ),
    name=st.sampled_from("abc"),
    kind=st.sampled_from(PolicyKind),
    policy_id=st.integers(1, 3),
    created=st.sampled_from(["", "2026-01-01T00:00:00Z"]),
    faults=st.just(("spec: is wrong",)),
)
_PODS = st.builds(
    pod,
    st.sampled_from(["x", "y"]),
    st.sampled_from(["10.1.0.1", "fd01::1"]),
    ready=st.booleans(),
    finished=st.booleans(),
    app=st.sampled_from(["cache", "web"]),
    namespace=st.sampled_from(["kube-system", "web"]),
)
_SERVICES = st.sampled_from([SERVICE, replace(SERVICE, cluster_ips=()), replace(SERVICE, client_ip_affinity=True)])
_NODES = st.sampled_from([NODE, Node(name="n")])
_STEPS = st.tuples(
    st.one_of(_POLICIES, _PODS, _SERVICES, _NODES), st.sampled_from(["tell", "tell", "forget"]), st.booleans()
)


def run_history(state: ResolverState[Any], fresh: ResolverState[Any], steps: list[tuple[Fact, str, bool]]) -> list[Any]:
    """Outcomes in the end, which are what the objects that are left lead to, and what the changes add up to."""
    left: dict[object, Fact] = {}
    returned: dict[PolicyKey, Any] = {}

    def collect() -> None:
        changes = state.decide_changes()
        returned.update({each.condition.key: each for each in changes.outcomes})
        for key in changes.removed:
            del returned[key]

    for fact, verb, decide_now in steps:
        identity = (type(fact), fact.name if isinstance(fact, Node) else fact.key)
        if verb == "tell":
            tell(state, fact)
            left[identity] = fact
        else:
            forget(state, fact)
            left.pop(identity, None)
        if decide_now:
            collect()
    collect()

    tell(fresh, *left.values()).decide_changes()
    expected = {each.condition.key: each for each in fresh.all_outcomes()}
    assert {each.condition.key: each for each in state.all_outcomes()} == expected
    assert returned == expected, "the returned changes add up to the present state"
    return list(expected.values())


@given(st.lists(_STEPS, max_size=25))
def test_any_history_ends_where_the_objects_that_are_left_lead(steps: list[tuple[Fact, str, bool]]) -> None:
    outcomes = run_history(new_state(), new_state(), steps)
    in_force = [each.desired.policy_id for each in outcomes if each.desired.in_force]
    assert len(in_force) == len(set(in_force)), "one number, one policy"


_CLUSTER_STEPS = st.tuples(
    st.one_of(
        _POLICIES,
        _PODS.flatmap(lambda each: st.sampled_from(["", "n", "m"]).map(lambda node: replace(each, node=node))),
        _SERVICES,
        st.sampled_from([NODE, Node(name="n"), Node(name="m"), Node(name="m", labels=NODE.labels)]),
    ),
    st.sampled_from(["tell", "tell", "forget"]),
    st.booleans(),
)


@given(st.lists(_CLUSTER_STEPS, max_size=25))
def test_any_history_of_the_cluster_ends_where_the_objects_that_are_left_lead(
    steps: list[tuple[Fact, str, bool]],
) -> None:
    for each in run_history(new_cluster(), new_cluster(), steps):
        verdict = each.verdict
        assert 0 <= verdict.nodes_ready <= verdict.nodes_selected
        assert verdict.reason == "Accepted" or (verdict.nodes_ready, verdict.frontends) == (0, ())
