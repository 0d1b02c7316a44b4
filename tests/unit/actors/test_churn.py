"""Objects that came and went leave nothing in memory, which would otherwise grow for as long as the agent runs."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from actors.controller.cluster_decision import ClusterDecision
from actors.controller.status_writer import StatusWriter
from actors.controller.write_plan import WritePlan
from actors.messages.reports import DesiredStateApplied, PoliciesResolved, PolicyCondition, PolicyState, WriteFault
from actors.messages.verdicts import Acceptance, ApplyVerdicts, PolicyStatusGone, PolicyStatusSeen, PolicyVerdict
from actors.reporting.agent_state import AgentState
from actors.resolving.agent_decision import AgentDecision
from actors.resolving.decision import Decision
from actors.resolving.resolver_state import ResolverState
from config.domain.ids import NamespacedName, PolicyKey, PolicyKind
from config.settings import DatapathSettings, RedirectSettings
from k8s.api.resource import Resource
from k8s.objects.identity import identity
from k8s.objects.model import LabelSelector, Node, Policy, PolicyStatus, Service, ServiceFrontend
from k8s.sources.cache import ObjectCache
from k8s.sources.store import ManifestStore
from k8s.status.write_requests import StatusWrite, WriteAnswer, WriteResult
from tests.unit.held import held
from tests.unit.objects import DNS_PORTS, address_spec, pod, policy, service_spec

POLICIES = 1000
REDIRECT = RedirectSettings()


def numbered(number: int) -> list[Policy]:
    """Two policies of one Service, one of which loses, one for an address, and one that cannot be parsed."""
    name = NamespacedName("kube-system", f"dns-{number}")
    of_service = replace(
        service_spec(),
        frontend=ServiceFrontend(service=name),
        node_selector=LabelSelector(match_labels=(("zone", f"z{number}"),)),
    )
    address = address_spec(str(ip_address("10.200.0.0") + number))
    return [
        policy(of_service, name=f"elder-{number}", policy_id=4 * number + 1, created="1"),
        policy(of_service, name=f"younger-{number}", policy_id=4 * number + 1, created="2"),
        policy(address, name=f"address-{number}", policy_id=4 * number + 3),
        policy(None, name=f"broken-{number}", policy_id=4 * number + 4, faults=("broken",)),
    ]


@pytest.mark.parametrize("decision", [AgentDecision(REDIRECT), ClusterDecision(REDIRECT)], ids=["agent", "controller"])
@pytest.mark.parametrize("waits", [False, True], ids=["decided", "not decided before they go"])
def test_the_resolver_holds_nothing_of_objects_that_are_gone(decision: Decision[Any], *, waits: bool) -> None:
    state = ResolverState[Any](datapath=DatapathSettings(), redirect=REDIRECT, decision=decision)
    for number in range(POLICIES // 4):
        policies = numbered(number)
        service = Service(key=NamespacedName("kube-system", f"dns-{number}"), ports=DNS_PORTS)
        backend = pod(f"cache-{number}", namespace=f"ns-{number}", app=f"app-{number}")
        node = Node(name=f"n{number}", labels=frozenset({("zone", f"z{number}")}))
        for each in policies:
            state.facts.upsert_policy(each, 1)
        state.facts.upsert_service(service, 1)
        state.facts.upsert_pod(backend, 1)
        state.facts.upsert_node(node, 1)
        state.decide_changes(is_known=lambda _policy: not waits)
        assert list(held(state)), "there is something while they exist"
        for each in policies:
            state.facts.remove_policy(each.key)
        state.facts.drop_unnamed_services()
        state.facts.remove_pod(backend.key)
        state.facts.remove_node(node.name)
        state.decide_changes()
    assert list(held(state)) == []


def verdict(number: int, uid: str) -> PolicyVerdict:
    return PolicyVerdict(
        key=key(number),
        uid=uid,
        generation=1,
        reason=Acceptance.ACCEPTED,
        message="",
        frontend="",
        frontends=(),
        nodes_ready=0,
        nodes_selected=0,
    )


def key(number: int) -> PolicyKey:
    return PolicyKey(PolicyKind.LOCAL_REDIRECT, f"p{number}")


SEQUENCES = {
    "judged and removed": ["seen old", "judged old", "removed", "gone"],
    "written and removed": ["seen old", "judged old", "written", "removed", "gone"],
    "written and removed by the API first": ["seen old", "judged old", "written", "gone", "removed"],
    "removed by the API first": ["seen old", "judged old", "gone", "removed"],
    "never judged": ["seen old", "gone"],
    "judged, and its status never seen": ["judged old", "gone", "removed"],
    "created again, and deleted before it was judged": [
        "seen old",
        "judged old",
        "gone",
        "seen new",
        "removed",
        "gone",
    ],
    "a listing without it": ["seen old", "judged old", "gone", "complete"],
}


@pytest.mark.parametrize("sequence", SEQUENCES.values(), ids=SEQUENCES)
def test_the_plan_of_writes_holds_nothing_of_policies_that_are_gone(sequence: list[str]) -> None:
    plan = WritePlan()
    for number in range(POLICIES):
        for step in sequence:
            what, _, uid = step.partition(" ")
            match what:
                case "seen":
                    plan.status_seen(PolicyStatusSeen(key=key(number), uid=uid, status=PolicyStatus()))
                case "judged":
                    plan.apply(ApplyVerdicts(complete=False, verdicts=(verdict(number, uid),)))
                case "removed":
                    plan.apply(ApplyVerdicts(complete=False, removed=(key(number),)))
                case "gone":
                    plan.status_gone(key(number))
                case "written":
                    while (write := plan.next(100.0 * number, "now")) is not None:
                        plan.ended(write, WriteAnswer(result=WriteResult.WRITTEN, version=1), 100.0 * number, 1.0)
                case _:
                    plan.apply(ApplyVerdicts(complete=True))
    assert list(held(plan)) == []


def test_a_policy_that_is_created_again_is_written_to_even_when_the_removal_of_the_former_one_arrives_later() -> None:
    plan = WritePlan()
    plan.status_seen(PolicyStatusSeen(key=key(1), uid="old", status=PolicyStatus()))
    plan.apply(ApplyVerdicts(complete=False, verdicts=(verdict(1, "old"),)))
    plan.status_gone(key(1))
    plan.status_seen(PolicyStatusSeen(key=key(1), uid="new", status=PolicyStatus()))
    plan.apply(ApplyVerdicts(complete=False, removed=(key(1),)))
    plan.apply(ApplyVerdicts(complete=False, verdicts=(verdict(1, "new"),)))
    written = plan.next(0.0, "now")
    assert isinstance(written, StatusWrite) and written.uid == "new"


def test_logged_refusals_are_forgotten_with_their_policy() -> None:
    writer = StatusWriter(write=lambda _write: WriteAnswer(result=WriteResult.WRITTEN), leads=lambda: False)
    for number in range(POLICIES):
        write = StatusWrite(key=key(number), uid="u", status=PolicyStatus(), former_reason="", decided_at="")
        writer._log_answer(write, WriteAnswer(result=WriteResult.REFUSED, error="422"))
        writer.on_receive(PolicyStatusGone(key=key(number)))
    assert writer._logged_refusals == {}


def test_conditions_and_faults_are_forgotten_with_their_policy() -> None:
    state = AgentState()
    for number in range(POLICIES):
        condition = PolicyCondition(
            key=key(number), policy_id=number, state=PolicyState.ACTIVE, reason="Active", message=""
        )
        state.resolve(PoliciesResolved(complete=False, conditions=(condition,)))
        fault = WriteFault(key=key(number), failed=True, message="full")
        state.apply(DesiredStateApplied(faults=(fault,), attached=True, apply_seconds=0.0))
        state.resolve(PoliciesResolved(complete=False, removed=(key(number),)))
        state.apply(DesiredStateApplied(faults=(), attached=True, apply_seconds=0.0))
    assert list(held(state)) == []


def test_sources_hold_nothing_of_objects_that_are_gone() -> None:
    cache, store, resource = ObjectCache(), ManifestStore(), Resource(kind="Pod", path="/api/v1/pods")
    cache.list(resource, [])
    for number in range(POLICIES):
        found = pod(f"p{number}")
        cache.change(resource, found)
        cache.delete(resource, identity(found))
        files = {f"{number}-{each}.yaml": {identity(found): found} for each in "ab"}
        store.apply(files)
        store.apply(dict.fromkeys(files))
    cache.forget(resource)
    assert [*held(cache), *held(store)] == []
