"""What a policy asks of this node, by rule number (DESIGN section 4)."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from actors.conflict import Loss
from actors.desired import Outcome, decide, find_claims, find_frontends
from actors.messages import PolicyState
from config.settings import DatapathSettings, RedirectSettings
from k8s.objects import LabelSelector, Node, Pod, Policy, PolicyKey, PolicyKind, Service
from tests.unit.objects import CLUSTER_IP, CLUSTER_IP6, SERVICE, VIP, address, of_service, pod, policy, port, service

BOTH = DatapathSettings()
REDIRECT = RedirectSettings()


def outcome(
    one: Policy,
    *,
    of: Service | None = None,
    pods: tuple[Pod, ...] = (),
    node: Node | None = None,
    loss: Loss | None = None,
    redirect: RedirectSettings = REDIRECT,
) -> Outcome:
    frontends = find_frontends(one, of, BOTH)
    return decide(one, frontends=frontends, service=of, pods=pods, node=node, loss=loss, redirect=redirect)


def shown(one: Policy, of: Service | None, datapath: DatapathSettings = BOTH) -> list[str]:
    return [f"{frontend}->{backend}" for frontend, backend in find_frontends(one, of, datapath).ports]


DUAL = service(port(53, "dns"), port(53, "dns-tcp", "TCP"), ips=(CLUSTER_IP, CLUSTER_IP6))
NAMED = (port(5353, "dns"), port(5354, "dns-tcp", "TCP"))


@pytest.mark.parametrize(
    ("rule", "one", "of", "expected"),
    [
        ("P2: an address", policy(), None, [f"{VIP}:53/UDP->5353"]),
        (
            "P1: without toPorts, the ports that have a partner",
            policy(frontend=of_service(), backend_ports=NAMED[:1]),
            DUAL,
            [],
        ),
        (
            "P1: both families, every port",
            policy(frontend=of_service(), backend_ports=NAMED),
            DUAL,
            [
                f"{CLUSTER_IP}:53/UDP->5353",
                f"{CLUSTER_IP}:53/TCP->5354",
                f"[{CLUSTER_IP6}]:53/UDP->5353",
                f"[{CLUSTER_IP6}]:53/TCP->5354",
            ],
        ),
        ("P3: one and one belong together", policy(frontend=of_service()), service(), [f"{CLUSTER_IP}:53/UDP->5353"]),
        (
            "P1: an entry that is no port of the Service",
            policy(frontend=of_service(port(53, "a"), port(99, "b")), backend_ports=(port(1, "a"), port(2, "b"))),
            service(),
            [f"{CLUSTER_IP}:53/UDP->1"],
        ),
        ("P1: headless", policy(frontend=of_service()), service(ips=()), []),
        ("P1: missing", policy(frontend=of_service()), None, []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_frontends(rule: str, one: Policy, of: Service | None, expected: list[str]) -> None:
    del rule
    if of is DUAL and len(one.spec.backend_ports if one.spec else ()) == 1:
        expected = [f"{CLUSTER_IP}:53/UDP->5353", f"[{CLUSTER_IP6}]:53/UDP->5353"]
    assert shown(one, of) == expected


def test_families_that_the_configuration_turns_off_give_no_frontend() -> None:
    one = policy(frontend=of_service(), backend_ports=NAMED)
    assert all("[" in each for each in shown(one, DUAL, DatapathSettings(ipv4=False)))
    assert "datapath.ipv6" in find_frontends(policy(), None, DatapathSettings(ipv4=False)).why_none


@pytest.mark.parametrize(
    ("change", "usable"),
    [
        ({}, True),
        ({"host_network": True}, True),
        ({"ready": False}, False),
        ({"terminating": True}, False),
        ({"finished": True}, False),
        ({"ips": ()}, False),
        ({"ips": (ip_address("fd00::5"),)}, False),
        ({"labels": frozenset()}, False),
    ],
    ids=["ready", "host network", "not ready", "terminating", "finished", "no IP", "other family", "other labels"],
)
def test_p5_usable_backends(change: dict[str, object], usable: bool) -> None:
    found = outcome(policy(), pods=(pod(**change),))  # type: ignore[arg-type]
    assert bool(found.desired.frontends) == usable, "P7: without a usable backend, no frontend"
    assert found.condition.state == (PolicyState.ACTIVE if usable else PolicyState.NO_BACKEND)


@pytest.mark.parametrize(
    ("state", "found"),
    [
        (PolicyState.INVALID, outcome(policy(faults=("spec: wrong",)))),
        (PolicyState.DISABLED, outcome(policy(enabled=False))),
        (PolicyState.CONFLICT, outcome(policy(), loss=Loss(PolicyKey(PolicyKind.BALANCING, "older"), SERVICE))),
        (
            PolicyState.NODE_NOT_SELECTED,
            outcome(policy(node_selector=LabelSelector(match_labels=(("zone", "a"),))), node=Node(name="n")),
        ),
        (PolicyState.NO_FRONTEND, outcome(policy(frontend=of_service()))),
    ],
)
def test_states_say_why_and_ask_nothing_of_the_kernel(state: PolicyState, found: Outcome) -> None:
    assert found.condition.state == state
    assert found.condition.message
    assert found.desired.frontends == ()


def test_p8_claims_of_disabled_and_invalid_policies_are_none() -> None:
    frontends = find_frontends(policy(), None, BOTH)
    assert find_claims(policy(), frontends)
    assert not find_claims(policy(enabled=False), frontends)
    assert not find_claims(policy(faults=("wrong",)), frontends)


def test_p8_a_balancing_policy_claims_its_frontends_though_it_has_no_backend_ports() -> None:
    one = policy(frontend=address(port(53, "a"), port(54, "b")), kind=PolicyKind.BALANCING, backend_ports=())
    assert len(find_claims(one, find_frontends(one, None, BOTH))) == 2


@pytest.mark.parametrize(
    ("asked", "expected"), [(None, 50), (0, 0), (7, 7)], ids=["the agent's", "no limit", "its own"]
)
def test_p11_limit(asked: int | None, expected: int) -> None:
    assert outcome(policy(qos_limit=asked), redirect=RedirectSettings(qos_limit=50)).desired.limit == expected


def test_p12_all_selected_pods_are_excepted_ready_or_not_unless_the_policy_says_no() -> None:
    pods = (pod("a"), pod("b", ready=False), pod("c", finished=True))
    assert [each.key.name for each in outcome(policy(), pods=pods).desired.excluded] == ["a", "b"]
    assert outcome(policy(skip_redirect_from_backend=False), pods=pods).desired.excluded == ()


@pytest.mark.parametrize(
    ("one", "of", "seconds"),
    [
        (policy(), None, 0),
        (policy(session_affinity=True), None, 10800),
        (policy(session_affinity=True, affinity_seconds=5), None, 5),
        (policy(frontend=of_service()), service(affinity=True), 10800),
        (policy(frontend=of_service(), session_affinity=False), service(affinity=True), 0),
    ],
    ids=["off for an address", "asked for", "with its own time-out", "the Service's", "against the Service's"],
)
def test_p13_affinity(one: Policy, of: Service | None, seconds: int) -> None:
    assert outcome(one, of=of).desired.affinity_seconds == seconds


def test_p14_host_processes() -> None:
    assert outcome(policy()).desired.redirect_from_host
    assert not outcome(policy(redirect_from_host=False)).desired.redirect_from_host
