"""What the watchers are asked for, and what their sources have confirmed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.controller.cluster_subscriptions import ClusterSubscriptions, pod_query
from actors.messages.facts import SourceName, SourceSynced
from actors.messages.subscriptions import WatchPods, WatchServices
from actors.resolving.facts import Facts
from actors.resolving.subscriptions import Coverage, Subscription, Subscriptions
from config.domain.ids import NamespacedName, PolicyKey, PolicyKind
from config.settings import RedirectSettings
from k8s.objects.model import PodQuery, Policy, PolicySpec, ServiceFrontend
from tests.unit.objects import NAME, SELECTOR, address_spec, policy, port, service_spec

DNS, WEB = NamespacedName("kube-system", "kube-dns"), NamespacedName("default", "web")
REDIRECT = RedirectSettings()
DNS_POLICY = service_spec(port(53), backend=(port(5353),))
OF_SERVICE, EVERYWHERE = (PodQuery(namespace=each, selector=SELECTOR) for each in ("kube-system", ""))


def facts(*policies: Policy) -> Facts:
    known = Facts(counts_nodes=True)
    for each in policies:
        known.upsert_policy(each, 1)
    return known


def services(*names: NamespacedName) -> Subscription[NamespacedName]:
    subscription = Subscription[NamespacedName]()
    subscription.change(frozenset(names))
    return subscription


def test_an_unchanged_request_is_not_sent_again() -> None:
    subscription = services(DNS)
    revision = subscription.revision
    assert not subscription.change(frozenset({DNS}))
    assert subscription.revision == revision


def test_an_answer_confirms_all_that_was_asked_for() -> None:
    subscription = services(DNS, WEB)
    assert subscription.answer(subscription.revision) == Coverage.WHOLE
    assert subscription.confirmed == {DNS, WEB}


def test_what_is_added_is_confirmed_only_by_an_answer_to_the_new_request() -> None:
    subscription = services(DNS)
    first = subscription.revision
    subscription.answer(first)
    subscription.change(frozenset({DNS, WEB}))
    assert subscription.answer(first) == Coverage.UNKNOWN
    assert subscription.confirmed == {DNS}


def test_what_was_no_longer_requested_is_not_confirmed_when_it_is_requested_again() -> None:
    subscription = services(DNS, WEB)
    subscription.answer(subscription.revision)
    subscription.change(frozenset({DNS}))
    subscription.change(frozenset({DNS, WEB}))
    assert subscription.confirmed == {DNS}


def test_a_listing_for_a_resolver_that_ran_before_is_stale() -> None:
    subscription = services(DNS)
    assert subscription.answer(subscription.revision + 1) == Coverage.STALE
    assert not subscription.confirmed


def test_an_agent_asks_for_services_only() -> None:
    subscriptions = Subscriptions()
    assert list(subscriptions.change(facts(policy(service_spec())))) == [SourceName.SERVICES]
    peer, message = subscriptions.request(SourceName.SERVICES) or ("", None)
    assert peer == "ServiceWatcher"
    assert isinstance(message, WatchServices)
    assert message.names == {NAME}
    assert subscriptions.request(SourceName.ENDPOINTS) is None


def test_an_agent_waits_for_nothing_to_decide_a_policy() -> None:
    assert Subscriptions().is_known(policy(service_spec()))


@pytest.mark.parametrize(
    ("subscriptions", "unasked"),
    [
        pytest.param(Subscriptions(), [SourceName.POLICIES, SourceName.ENDPOINTS], id="agent"),
        pytest.param(ClusterSubscriptions(REDIRECT), [SourceName.POLICIES], id="controller"),
    ],
)
def test_nothing_is_requested_before_the_policies_are_known(
    subscriptions: Subscriptions, unasked: list[SourceName]
) -> None:
    assert [subscriptions.request(source) for source in SourceName] == [None] * len(SourceName)
    assert {source for source in SourceName if subscriptions.is_requested(source)} == set(unasked)


def test_a_controller_asks_for_the_pods_of_all_policies() -> None:
    subscriptions = ClusterSubscriptions(REDIRECT)

    def asked(known: Facts) -> frozenset[PodQuery]:
        list(subscriptions.change(known))
        peer, message = subscriptions.request(SourceName.ENDPOINTS) or ("", None)
        assert peer == "EndpointWatcher"
        assert isinstance(message, WatchPods)
        return message.queries

    known = facts(policy(service_spec(), name="a"), policy(service_spec(), name="b"), policy(address_spec(), name="c"))
    assert asked(known) == {OF_SERVICE, EVERYWHERE}
    known.remove_policy(PolicyKey(PolicyKind.LOCAL_REDIRECT, "a"))
    assert asked(known) == {OF_SERVICE, EVERYWHERE}
    known.remove_policy(PolicyKey(PolicyKind.LOCAL_REDIRECT, "b"))
    assert asked(known) == {EVERYWHERE}
    known.upsert_policy(policy(None, name="c", faults=("spec: is wrong",)), 1)
    assert asked(known) == frozenset()


def test_a_controller_asks_only_for_what_has_changed() -> None:
    subscriptions, known = ClusterSubscriptions(REDIRECT), facts(policy(service_spec()))
    assert list(subscriptions.change(known)) == [SourceName.SERVICES, SourceName.ENDPOINTS]
    assert list(subscriptions.change(known)) == []
    known.upsert_policy(policy(address_spec(), name="c"), 1)
    assert list(subscriptions.change(known)) == [SourceName.ENDPOINTS]
    known.upsert_policy(policy(address_spec("169.254.0.91"), name="d"), 1)
    assert list(subscriptions.change(known)) == [], "the same Pods"


def test_a_controller_knows_a_policy_once_both_its_service_and_its_pods_are_confirmed() -> None:
    subscriptions, dns = ClusterSubscriptions(REDIRECT), policy(service_spec())
    list(subscriptions.change(facts(dns)))
    for source in (SourceName.SERVICES, SourceName.ENDPOINTS):
        assert not subscriptions.is_known(dns)
        _, message = subscriptions.request(source) or ("", None)
        assert isinstance(message, (WatchServices, WatchPods))
        assert subscriptions.answer(SourceSynced(source=source, listing=1, revision=message.revision)) == Coverage.WHOLE
    assert subscriptions.is_known(dns)
    assert not subscriptions.is_known(policy(address_spec())), "it selects Pods of all namespaces"


@pytest.mark.parametrize(
    ("spec", "namespaces", "expected"),
    [
        pytest.param(DNS_POLICY, {"*"}, "kube-system", id="of a Service: its namespace"),
        pytest.param(replace(DNS_POLICY, backend_namespace="web"), {"*"}, "web", id="of a Service: unless it says so"),
        pytest.param(address_spec(), {"*"}, "", id="of an address: all"),
        pytest.param(replace(address_spec(), backend_namespace="web"), {"*"}, "web", id="of an address: its own"),
        pytest.param(address_spec(), {"web"}, "web", id="the one that is allowed"),
        pytest.param(address_spec(), {"web", "dns"}, "", id="several that are allowed: one watch"),
        pytest.param(address_spec(), set[str](), None, id="none that is allowed"),
        pytest.param(replace(DNS_POLICY, enabled=False), {"*"}, None, id="disabled"),
        pytest.param(None, {"*"}, None, id="invalid"),
    ],
)
def test_the_pods_to_ask_for_are_those_of_the_namespaces_that_a_policy_may_use(
    spec: PolicySpec | None, namespaces: set[str], expected: str | None
) -> None:
    query = pod_query(policy(spec), RedirectSettings(address_backend_namespaces=frozenset(namespaces)))
    assert query == (None if expected is None else PodQuery(namespace=expected, selector=SELECTOR))


def test_a_balancing_policy_needs_no_pods() -> None:
    claim = PolicySpec(frontend=ServiceFrontend(service=NAME))
    assert pod_query(policy(claim, kind=PolicyKind.BALANCING), REDIRECT) is None
