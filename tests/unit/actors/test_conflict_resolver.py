"""ConflictResolver of an agent by itself: what it sends to its peers, and when."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest

from actors.framework.messages import Message
from actors.messages.desired import ApplyDesiredState
from actors.messages.facts import (
    NodeRemoved,
    PodRemoved,
    PodUpserted,
    PolicyRemoved,
    ServiceRemoved,
    SourceName,
    SourceSynced,
)
from actors.messages.reports import PolicyState
from actors.messages.resync import ResyncDesiredState, ResyncSource
from actors.messages.subscriptions import WatchPods, WatchServices
from actors.messages.upkeep import LeaseProbe
from actors.resolving.agent_decision import AgentDecision
from actors.resolving.conflict_resolver import ConflictResolver, Flush
from actors.resolving.subscriptions import Subscriptions
from config.domain.ids import NamespacedName, PolicyKind
from config.settings import DatapathSettings, RedirectSettings
from k8s.objects.model import LabelSelector, Node, PolicySpec, ServiceFrontend
from tests.unit.actors.resolving import AT, Resolving, fact
from tests.unit.objects import KEY, NAME, SERVICE, address_spec, pod, policy, port, service_spec
from tests.unit.peers import Peer, fence

DNS = policy(service_spec(port(53), backend=(port(5353),)))
VIP = policy(address_spec())


@pytest.fixture
def resolving() -> Resolving:
    return Resolving()


def test_at_its_start_it_asks_every_watcher_for_everything(resolving: Resolving) -> None:
    fence(resolving.ref)
    assert {name: peer.heard() for name, peer in resolving.watchers.items()} == {
        name: [ResyncSource()] for name in resolving.watchers
    }


@pytest.mark.parametrize("order", list(itertools.permutations(SourceName)), ids=" ".join)
def test_nothing_is_sent_before_every_source_is_synced_and_the_first_message_is_complete(
    resolving: Resolving, order: Sequence[SourceName]
) -> None:
    resolving.tell(fact(DNS), fact(pod()))
    for source in order:
        assert resolving.applied() == []
        resolving.sync(source)
    if order.index(SourceName.SERVICES) < order.index(SourceName.POLICIES):
        # There was no subscription to Services when that listing ended, so it does not count.
        assert resolving.applied() == []
        resolving.sync(SourceName.SERVICES)
    (applied,) = resolving.applied()
    (resolved,) = resolving.resolved()
    assert applied.complete and resolved.complete
    assert [each.key for each in applied.upserted] == [each.key for each in resolved.conditions] == [KEY]


def test_a_cluster_without_policies_is_decided_as_well(resolving: Resolving) -> None:
    resolving.sync(SourceName.POLICIES)
    (subscription,) = resolving.subscriptions()
    assert subscription.names == frozenset()
    resolving.sync(SourceName.ENDPOINTS, SourceName.SERVICES)
    (applied,) = resolving.applied()
    assert (applied.complete, applied.upserted) == (True, ())


def test_a_listing_that_answers_an_older_subscription_does_not_count(resolving: Resolving) -> None:
    resolving.sync(SourceName.POLICIES, SourceName.ENDPOINTS)
    older = resolving.revision()
    resolving.tell(fact(DNS))
    (subscription,) = resolving.subscriptions()
    assert subscription.names == {NAME} and subscription.revision > older
    resolving.tell(SourceSynced(source=SourceName.SERVICES, listing=1, revision=older))
    assert resolving.applied() == []
    assert resolving.subscriptions() == [subscription], (
        "the request is repeated, since the watcher may have been restarted"
    )
    resolving.sync(SourceName.SERVICES)
    assert [each.complete for each in resolving.applied()] == [True]


def test_a_listing_that_answers_a_former_resolver_does_not_count(resolving: Resolving) -> None:
    resolving.open(DNS, SERVICE)
    former = resolving.revision()
    resolving.ref.stop(timeout=10)
    resolving.ref = ConflictResolver.start(
        datapath=DatapathSettings(),
        redirect=RedirectSettings(),
        decision=AgentDecision(RedirectSettings()),
        subscriptions=Subscriptions(),
    )
    resolving.tell(fact(VIP))
    resolving.sync(SourceName.POLICIES, SourceName.ENDPOINTS)
    assert resolving.revision() > former
    resolving.tell(SourceSynced(source=SourceName.SERVICES, listing=1, revision=former))
    assert resolving.applied() == []


def test_a_service_that_a_new_policy_names_is_used_when_its_fact_arrives(resolving: Resolving) -> None:
    resolving.open(pod())
    resolving.tell(fact(DNS))
    assert resolving.states() == [{"p": PolicyState.NO_FRONTEND}]
    resolving.tell(fact(SERVICE))
    assert resolving.states() == [{"p": PolicyState.ACTIVE}]


def test_a_service_that_no_policy_names_is_forgotten(resolving: Resolving) -> None:
    resolving.open(DNS, SERVICE, pod())
    resolving.subscriptions()
    resolving.tell(PolicyRemoved(key=KEY, received_at=AT))
    (subscription,) = resolving.subscriptions()
    assert subscription.names == frozenset()
    resolving.tell(fact(SERVICE))  # it was under way when the subscription changed
    resolving.resolved()
    resolving.tell(fact(DNS))
    assert resolving.states() == [{"p": PolicyState.NO_FRONTEND}]


@pytest.mark.parametrize(
    ("messages", "state"),
    [
        pytest.param([fact(pod(ready=False))], PolicyState.NO_BACKEND, id="Pod not Ready"),
        pytest.param([PodRemoved(key=pod().key, received_at=AT)], PolicyState.NO_BACKEND, id="Pod deleted"),
        pytest.param([ServiceRemoved(key=NAME, received_at=AT)], PolicyState.NO_FRONTEND, id="Service deleted"),
        pytest.param([fact(replace(SERVICE, cluster_ips=()))], PolicyState.NO_FRONTEND, id="Service becomes headless"),
        pytest.param([NodeRemoved(name="n", received_at=AT)], PolicyState.NODE_NOT_SELECTED, id="Node deleted"),
        pytest.param(
            [SourceSynced(source=SourceName.ENDPOINTS, listing=2)],
            PolicyState.NODE_NOT_SELECTED,
            id="a new listing without them",
        ),
    ],
)
def test_a_change_is_sent_once_and_only_with_what_changed(
    resolving: Resolving, messages: list[Message], state: PolicyState
) -> None:
    zone = LabelSelector(match_labels=(("zone", "b"),))
    node = Node(name="n", labels=frozenset({("zone", "b")}))
    assert DNS.spec
    resolving.open(
        replace(DNS, spec=replace(DNS.spec, node_selector=zone)),
        policy(address_spec("169.254.0.91"), name="bystander", policy_id=8),
        SERVICE,
        node,
        pod(),
        pod("other", "10.1.0.9", app="other"),
    )
    resolving.tell(*messages)
    (applied,) = resolving.applied()
    (resolved,) = resolving.resolved()
    assert not applied.complete and not resolved.complete
    assert {each.key.name: each.state for each in resolved.conditions}["p"] == state


def test_a_removed_policy_is_reported_as_removed(resolving: Resolving) -> None:
    resolving.open(VIP, pod())
    resolving.tell(PolicyRemoved(key=KEY, received_at=AT))
    (applied,) = resolving.applied()
    (resolved,) = resolving.resolved()
    assert applied.removed == resolved.removed == (KEY,)


def test_a_burst_is_decided_once_and_timed_from_its_oldest_event() -> None:
    writer = Peer("MapWriter")
    watcher = Peer("ServiceWatcher")
    resolver = ConflictResolver(
        datapath=DatapathSettings(),
        redirect=RedirectSettings(),
        decision=AgentDecision(RedirectSettings()),
        subscriptions=Subscriptions(),
    )  # it runs in the thread of this test

    def handle(*messages: Message) -> None:
        for message in messages:
            resolver.on_receive(message)
        assert resolver.actor_inbox.get().message == Flush()
        assert resolver.actor_inbox.empty(), "there is one Flush for all facts"
        resolver.on_receive(Flush())

    handle(fact(VIP), *(SourceSynced(source=source, listing=1) for source in SourceName))
    subscription = watcher.next()
    assert isinstance(subscription, WatchServices)
    handle(SourceSynced(source=SourceName.SERVICES, listing=1, revision=subscription.revision))
    pods = [pod(f"p{n}", f"10.1.0.{n}") for n in range(1, 50)]
    handle(*(PodUpserted(pod=each, listing=1, received_at=100.0 - n) for n, each in enumerate(pods)))
    first, burst = writer.heard()
    assert isinstance(first, ApplyDesiredState) and first.complete
    assert isinstance(burst, ApplyDesiredState) and burst.received_at == 52.0
    assert len(burst.upserted[0].frontends[0].backends) == 49


def test_facts_that_change_no_outcome_cause_no_message(resolving: Resolving) -> None:
    resolving.open(VIP, pod())
    resolving.tell(fact(pod(), listing=2), fact(pod("other", app="other")), fact(SERVICE))
    resolving.tell(SourceSynced(source=SourceName.POLICIES, listing=1))
    assert (resolving.applied(), resolving.resolved()) == ([], [])


@pytest.mark.parametrize("is_open", [True, False])
def test_a_restarted_peer_gets_everything_once_the_sources_are_synced(resolving: Resolving, is_open: bool) -> None:
    if is_open:
        resolving.open(VIP, pod())
        resolving.tell(ResyncDesiredState())
    else:
        resolving.tell(ResyncDesiredState(), fact(VIP))
        assert resolving.applied() == []
        resolving.sync(SourceName.POLICIES, SourceName.ENDPOINTS, SourceName.SERVICES)
    (applied,) = resolving.applied()
    (resolved,) = resolving.resolved()
    assert applied.complete and resolved.complete
    assert [each.key for each in applied.upserted] == [KEY]


@pytest.mark.parametrize("later", [0, 1])
def test_p8_the_loser_is_not_in_force_and_the_number_of_losers_is_reported(resolving: Resolving, later: int) -> None:
    pair = [VIP, policy(address_spec(), name="young", policy_id=8, created="2026-01-01T00:00:00Z")]
    resolving.open(pair[1 - later], pod())
    resolving.tell(fact(pair[later]))
    resolved = resolving.resolved()[-1]
    assert resolved.conflicts == 1
    (loser,) = [each for message in resolving.applied() for each in message.upserted if each.key.name == "young"][-1:]
    assert not loser.in_force and not loser.frontends


def test_p8_a_policy_id_is_not_shared(resolving: Resolving) -> None:
    resolving.open(VIP, pod())
    resolving.tell(fact(policy(address_spec("169.254.0.91"), name="young", created="2026-01-01T00:00:00Z")))
    (applied,) = resolving.applied()
    assert [(each.key.name, each.in_force) for each in applied.upserted] == [("young", False)]


def test_p8_a_balancing_policy_that_loses_is_counted_but_has_no_condition(resolving: Resolving) -> None:
    resolving.open(VIP, pod())
    claim = PolicySpec(frontend=address_spec().frontend)
    rival = policy(claim, kind=PolicyKind.BALANCING, name="rival", created="2026-01-01T00:00:00Z")
    resolving.tell(fact(rival))
    (resolved,) = resolving.resolved()
    assert (resolved.conflicts, resolved.conditions) == (1, ())
    assert resolving.applied() == []


def test_p9_invalid_and_disabled_policies_have_conditions(resolving: Resolving) -> None:
    resolving.open()
    resolving.tell(
        fact(policy(None, name="invalid", faults=("spec: is missing",))),
        fact(policy(replace(address_spec(), enabled=False), name="disabled")),
    )
    found = {name: state for states in resolving.states() for name, state in states.items()}
    assert found == {"invalid": PolicyState.INVALID, "disabled": PolicyState.DISABLED}


def probe(source: SourceName, second: int) -> LeaseProbe:
    return LeaseProbe(sent_ns=second * 10**9, passed_by=source)


@pytest.mark.parametrize(
    ("probes", "renewed"),
    [
        pytest.param([(SourceName.POLICIES, 1), (SourceName.SERVICES, 1)], [], id="one watcher is missing"),
        pytest.param([(source, 1) for source in SourceName], [1], id="all have passed it on"),
        pytest.param([(source, 1) for source in SourceName] * 2, [1], id="the same round again"),
        pytest.param([(source, second) for second in (1, 2) for source in SourceName], [1, 2], id="every round"),
        pytest.param(
            [
                (SourceName.POLICIES, 1),
                (SourceName.SERVICES, 1),
                (SourceName.POLICIES, 2),
                (SourceName.SERVICES, 2),
                (SourceName.ENDPOINTS, 1),
                (SourceName.POLICIES, 3),
                (SourceName.SERVICES, 3),
                (SourceName.ENDPOINTS, 2),
            ],
            [1, 2],
            id="a watcher that lags behind the others",
        ),
        pytest.param(
            [(source, 1) for source in SourceName]
            + [(SourceName.POLICIES, second) for second in range(2, 9)]
            + [(SourceName.SERVICES, second) for second in range(2, 9)],
            [1],
            id="a watcher that is stuck stops it",
        ),
    ],
)
def test_the_lease_is_renewed_as_of_the_slowest_watcher(
    resolving: Resolving, probes: list[tuple[SourceName, int]], renewed: list[int]
) -> None:
    resolving.tell(*(probe(source, second) for source, second in probes))
    assert resolving.writer.heard() == [LeaseProbe(sent_ns=second * 10**9) for second in renewed]


def synced(source: SourceName, as_of: float, listing: int) -> SourceSynced:
    return SourceSynced(source=source, listing=listing, as_of=as_of)


def test_a_probe_carries_the_time_of_the_oldest_listing(resolving: Resolving) -> None:
    for number, listed in enumerate(((5.0, 6.0, 7.0), (9.0, 6.0, 7.0), (9.0, 11.0, 10.0)), start=1):
        for source, as_of in zip(SourceName, listed, strict=True):
            revision = resolving.revision() if source == SourceName.SERVICES else 0
            resolving.tell(replace(synced(source, as_of, number), revision=revision))
        resolving.tell(*(probe(source, number) for source in SourceName))
    found = [each.as_of for each in resolving.writer.heard() if isinstance(each, LeaseProbe)]
    assert found == [5.0, 6.0, 9.0]


def test_a_listing_that_does_not_cover_the_subscription_does_not_date_a_probe(resolving: Resolving) -> None:
    resolving.open(DNS, SERVICE, pod())
    resolving.writer.heard()
    for source in (SourceName.POLICIES, SourceName.ENDPOINTS):
        resolving.tell(synced(source, 9.0, 2))
    resolving.tell(replace(synced(SourceName.SERVICES, 9.0, 2), revision=resolving.revision() - 1))
    resolving.tell(*(probe(source, 1) for source in SourceName))
    assert [each.as_of for each in resolving.writer.heard() if isinstance(each, LeaseProbe)] == [0.0]


def test_a_probe_waits_until_the_facts_before_it_are_decided_and_sent(resolving: Resolving) -> None:
    resolving.open(VIP, pod())
    resolving.writer.heard()
    for source in SourceName:
        resolving.ref.tell(probe(source, 1))
    fence(resolving.ref)
    resolving.writer.heard()
    resolving.tell(
        *(probe(source, 2) for source in list(SourceName)[:2]), replace_pod(), probe(SourceName.ENDPOINTS, 2)
    )
    assert [type(each) for each in resolving.writer.heard()] == [ApplyDesiredState, LeaseProbe]


def replace_pod() -> Message:
    return fact(replace(pod(), ready=False))


def test_one_subscription_has_the_services_of_both_kinds_of_policies(resolving: Resolving) -> None:
    web = NamespacedName("default", "web")
    resolving.tell(
        fact(DNS), fact(policy(PolicySpec(frontend=ServiceFrontend(service=web)), kind=PolicyKind.BALANCING))
    )
    assert resolving.subscriptions() == []
    resolving.sync(SourceName.POLICIES)
    (subscription,) = resolving.subscriptions()
    assert subscription.names == {NAME, web}


def test_an_agent_does_not_subscribe_to_pods(resolving: Resolving) -> None:
    resolving.open(VIP, pod())
    assert not [each for each in resolving.watchers["EndpointWatcher"].heard() if isinstance(each, WatchPods)]


def test_p20_the_addresses_of_all_pods_are_sent_when_they_change(resolving: Resolving) -> None:
    resolving.open(VIP, pod())
    resolving.tell(fact(replace(pod("stranger", "10.1.0.9", app="web"), ready=False)))
    (applied,) = resolving.applied()
    assert (applied.complete, applied.upserted) == (False, ())
    assert set(map(str, applied.pod_addresses or ())) == {"10.1.0.1", "fd01::1", "10.1.0.9"}
    resolving.tell(fact(pod("stranger", "10.1.0.9", app="web")))
    assert resolving.applied() == [], "nothing that anybody needs to know has changed"
    resolving.tell(fact(replace(pod("stranger", "10.1.0.9", app="web"), finished=True)))
    (applied,) = resolving.applied()
    assert set(map(str, applied.pod_addresses or ())) == {"10.1.0.1", "fd01::1"}
    resolving.tell(ResyncDesiredState())
    (applied,) = resolving.applied()
    assert applied.complete and set(map(str, applied.pod_addresses or ())) == {"10.1.0.1", "fd01::1"}
