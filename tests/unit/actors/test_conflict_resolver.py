"""ConflictResolver by itself: what it sends to its peers, and when."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from actors.controller.cluster_decision import ClusterDecision
from actors.framework.messages import Message
from actors.messages.desired import ApplyDesiredState, Flush, ResyncDesiredState
from actors.messages.facts import (
    NodeRemoved,
    NodeUpserted,
    PodRemoved,
    PodUpserted,
    PolicyRemoved,
    PolicyUpserted,
    ServiceRemoved,
    ServiceUpserted,
    SourceName,
    SourceSynced,
)
from actors.messages.reports import PoliciesResolved, PolicyState
from actors.messages.subscriptions import ResyncSource, WatchPods, WatchServices
from actors.messages.upkeep import LeaseProbe
from actors.messages.verdicts import ApplyVerdicts
from actors.resolving.agent_decision import AgentDecision
from actors.resolving.conflict_resolver import ConflictResolver
from actors.resolving.decision import Decision
from config.domain.ids import NamespacedName, PolicyKind
from config.settings import DatapathSettings, RedirectSettings
from k8s.objects.model import LabelSelector, Node, Pod, PodQuery, Policy, PolicySpec, Service, ServiceFrontend
from tests.unit.objects import KEY, NAME, SELECTOR, SERVICE, address_spec, pod, policy, port, service_spec
from tests.unit.peers import Peer, fence

AT = 1.5
"""Time at which the facts of these tests were received."""
DNS = policy(service_spec(port(53), backend=(port(5353),)))
VIP = policy(address_spec())


def fact(thing: Policy | Service | Pod | Node, listing: int = 1) -> Message:
    match thing:
        case Policy():
            return PolicyUpserted(policy=thing, listing=listing, received_at=AT)
        case Service():
            return ServiceUpserted(service=thing, listing=listing, received_at=AT)
        case Pod():
            return PodUpserted(pod=thing, listing=listing, received_at=AT)
        case Node():
            return NodeUpserted(node=thing, listing=listing, received_at=AT)


class Setting:
    """A resolver, and peers that record what they hear."""

    def __init__(self, decision: Decision[Any] | None = None) -> None:
        self.watchers = {name: Peer(name) for name in ("PolicyWatcher", "ServiceWatcher", "EndpointWatcher")}
        self.writer = Peer("MapWriter")
        self.reporters = [Peer("StatusReporter"), Peer("MetricsExporter")]
        decision = decision or AgentDecision(RedirectSettings())
        self.ref = ConflictResolver.start(datapath=DatapathSettings(), redirect=RedirectSettings(), decision=decision)
        self._revision = 0

    def tell(self, *messages: Message) -> None:
        """Returns when they are handled, and when the decisions that they caused have been sent."""
        for message in messages:
            self.ref.tell(message)
        fence(self.ref)  # the facts, behind which a Flush may queue
        fence(self.ref)  # the Flush

    def sync(self, *sources: SourceName) -> None:
        """Ends a listing of each source. The one of Services covers the newest subscription."""
        for source in sources or SourceName:
            revision = self.revision() if source == SourceName.SERVICES else 0
            self.tell(SourceSynced(source=source, listing=1, revision=revision))

    def revision(self) -> int:
        """Revision of the newest WatchServices; 0 when there was none."""
        self.subscriptions()
        return self._revision

    def subscriptions(self) -> list[WatchServices]:
        """Those that were sent since the last call."""
        found = [each for each in self.watchers["ServiceWatcher"].heard() if isinstance(each, WatchServices)]
        self._revision = found[-1].revision if found else self._revision
        return found

    def applied(self) -> list[ApplyDesiredState]:
        heard = self.writer.heard()
        assert all(isinstance(each, ApplyDesiredState) for each in heard)
        return [each for each in heard if isinstance(each, ApplyDesiredState)]

    def resolved(self) -> list[PoliciesResolved]:
        """Both reporters hear the same."""
        first, second = (peer.heard() for peer in self.reporters)
        assert first == second
        return [each for each in first if isinstance(each, PoliciesResolved)]

    def states(self) -> list[dict[str, PolicyState]]:
        return [{each.key.name: each.state for each in message.conditions} for message in self.resolved()]

    def open(self, *facts: Policy | Service | Pod | Node) -> None:
        """Syncs all sources, with these facts, and drops the messages that this causes."""
        self.tell(*(fact(each) for each in facts if not isinstance(each, Service)))
        self.sync(SourceName.POLICIES, SourceName.ENDPOINTS)
        self.tell(*(fact(each) for each in facts if isinstance(each, Service)))
        self.sync(SourceName.SERVICES)
        (first,) = self.applied()
        assert first.complete
        self.resolved()


@pytest.fixture
def setting() -> Setting:
    return Setting()


def test_at_its_start_it_asks_every_watcher_for_everything(setting: Setting) -> None:
    fence(setting.ref)
    assert {name: peer.heard() for name, peer in setting.watchers.items()} == {
        name: [ResyncSource()] for name in setting.watchers
    }


@pytest.mark.parametrize("order", list(itertools.permutations(SourceName)), ids=" ".join)
def test_nothing_is_sent_before_every_source_is_synced_and_the_first_message_is_complete(
    setting: Setting, order: Sequence[SourceName]
) -> None:
    setting.tell(fact(DNS), fact(pod()))
    for source in order:
        assert setting.applied() == []
        setting.sync(source)
    if order.index(SourceName.SERVICES) < order.index(SourceName.POLICIES):
        # There was no subscription to Services when that listing ended, so it does not count.
        assert setting.applied() == []
        setting.sync(SourceName.SERVICES)
    (applied,) = setting.applied()
    (resolved,) = setting.resolved()
    assert applied.complete and resolved.complete
    assert [each.key for each in applied.upserted] == [each.key for each in resolved.conditions] == [KEY]


def test_a_cluster_without_policies_is_decided_as_well(setting: Setting) -> None:
    setting.sync(SourceName.POLICIES)
    (subscription,) = setting.subscriptions()
    assert subscription.names == frozenset()
    setting.sync(SourceName.ENDPOINTS, SourceName.SERVICES)
    (applied,) = setting.applied()
    assert (applied.complete, applied.upserted) == (True, ())


def test_a_listing_that_answers_an_older_subscription_does_not_count(setting: Setting) -> None:
    setting.sync(SourceName.POLICIES, SourceName.ENDPOINTS)
    older = setting.revision()
    setting.tell(fact(DNS))
    (subscription,) = setting.subscriptions()
    assert subscription.names == {NAME} and subscription.revision > older
    setting.tell(SourceSynced(source=SourceName.SERVICES, listing=1, revision=older))
    assert setting.applied() == []
    assert setting.subscriptions() == [subscription], (
        "the request is repeated, since the watcher may have been restarted"
    )
    setting.sync(SourceName.SERVICES)
    assert [each.complete for each in setting.applied()] == [True]


def test_a_listing_that_answers_a_former_resolver_does_not_count(setting: Setting) -> None:
    setting.open(DNS, SERVICE)
    former = setting.revision()
    setting.ref.stop(timeout=10)
    setting.ref = ConflictResolver.start(
        datapath=DatapathSettings(), redirect=RedirectSettings(), decision=AgentDecision(RedirectSettings())
    )
    setting.tell(fact(VIP))
    setting.sync(SourceName.POLICIES, SourceName.ENDPOINTS)
    assert setting.revision() > former
    setting.tell(SourceSynced(source=SourceName.SERVICES, listing=1, revision=former))
    assert setting.applied() == []


def test_a_service_that_a_new_policy_names_is_used_when_its_fact_arrives(setting: Setting) -> None:
    setting.open(pod())
    setting.tell(fact(DNS))
    assert setting.states() == [{"p": PolicyState.NO_FRONTEND}]
    setting.tell(fact(SERVICE))
    assert setting.states() == [{"p": PolicyState.ACTIVE}]


def test_a_service_that_no_policy_names_is_forgotten(setting: Setting) -> None:
    setting.open(DNS, SERVICE, pod())
    setting.subscriptions()
    setting.tell(PolicyRemoved(key=KEY, received_at=AT))
    (subscription,) = setting.subscriptions()
    assert subscription.names == frozenset()
    setting.tell(fact(SERVICE))  # it was under way when the subscription changed
    setting.resolved()
    setting.tell(fact(DNS))
    assert setting.states() == [{"p": PolicyState.NO_FRONTEND}]


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
    setting: Setting, messages: list[Message], state: PolicyState
) -> None:
    zone = LabelSelector(match_labels=(("zone", "b"),))
    node = Node(name="n", labels=frozenset({("zone", "b")}))
    assert DNS.spec
    setting.open(
        replace(DNS, spec=replace(DNS.spec, node_selector=zone)),
        policy(address_spec("169.254.0.91"), name="bystander", policy_id=8),
        SERVICE,
        node,
        pod(),
        pod("other", "10.1.0.9", app="other"),
    )
    setting.tell(*messages)
    (applied,) = setting.applied()
    (resolved,) = setting.resolved()
    assert not applied.complete and not resolved.complete
    assert {each.key.name: each.state for each in resolved.conditions}["p"] == state


def test_a_removed_policy_is_reported_as_removed(setting: Setting) -> None:
    setting.open(VIP, pod())
    setting.tell(PolicyRemoved(key=KEY, received_at=AT))
    (applied,) = setting.applied()
    (resolved,) = setting.resolved()
    assert applied.removed == resolved.removed == (KEY,)


def test_a_burst_is_decided_once_and_timed_from_its_oldest_event() -> None:
    writer = Peer("MapWriter")
    watcher = Peer("ServiceWatcher")
    resolver = ConflictResolver(
        datapath=DatapathSettings(), redirect=RedirectSettings(), decision=AgentDecision(RedirectSettings())
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


def test_facts_that_change_no_outcome_cause_no_message(setting: Setting) -> None:
    setting.open(VIP, pod())
    setting.tell(fact(pod(), listing=2), fact(pod("other", app="other")), fact(SERVICE))
    setting.tell(SourceSynced(source=SourceName.POLICIES, listing=1))
    assert (setting.applied(), setting.resolved()) == ([], [])


@pytest.mark.parametrize("is_open", [True, False])
def test_a_restarted_peer_gets_everything_once_the_sources_are_synced(setting: Setting, is_open: bool) -> None:
    if is_open:
        setting.open(VIP, pod())
        setting.tell(ResyncDesiredState())
    else:
        setting.tell(ResyncDesiredState(), fact(VIP))
        assert setting.applied() == []
        setting.sync(SourceName.POLICIES, SourceName.ENDPOINTS, SourceName.SERVICES)
    (applied,) = setting.applied()
    (resolved,) = setting.resolved()
    assert applied.complete and resolved.complete
    assert [each.key for each in applied.upserted] == [KEY]


@pytest.mark.parametrize("later", [0, 1])
def test_p8_the_loser_is_not_in_force_and_the_number_of_losers_is_reported(setting: Setting, later: int) -> None:
    pair = [VIP, policy(address_spec(), name="young", policy_id=8, created="2026-01-01T00:00:00Z")]
    setting.open(pair[1 - later], pod())
    setting.tell(fact(pair[later]))
    resolved = setting.resolved()[-1]
    assert resolved.conflicts == 1
    (loser,) = [each for message in setting.applied() for each in message.upserted if each.key.name == "young"][-1:]
    assert not loser.in_force and not loser.frontends


def test_p8_a_policy_id_is_not_shared(setting: Setting) -> None:
    setting.open(VIP, pod())
    setting.tell(fact(policy(address_spec("169.254.0.91"), name="young", created="2026-01-01T00:00:00Z")))
    (applied,) = setting.applied()
    assert [(each.key.name, each.in_force) for each in applied.upserted] == [("young", False)]


def test_p8_a_balancing_policy_that_loses_is_counted_but_has_no_condition(setting: Setting) -> None:
    setting.open(VIP, pod())
    claim = PolicySpec(frontend=address_spec().frontend)
    rival = policy(claim, kind=PolicyKind.BALANCING, name="rival", created="2026-01-01T00:00:00Z")
    setting.tell(fact(rival))
    (resolved,) = setting.resolved()
    assert (resolved.conflicts, resolved.conditions) == (1, ())
    assert setting.applied() == []


def test_p9_invalid_and_disabled_policies_have_conditions(setting: Setting) -> None:
    setting.open()
    setting.tell(
        fact(policy(None, name="invalid", faults=("spec: is missing",))),
        fact(policy(replace(address_spec(), enabled=False), name="disabled")),
    )
    found = {name: state for states in setting.states() for name, state in states.items()}
    assert found == {"invalid": PolicyState.INVALID, "disabled": PolicyState.DISABLED}


def probe(source: SourceName, second: int, number: int = 0) -> LeaseProbe:
    return LeaseProbe(round=number or second, sent_ns=second * 10**9, passed_by=source)


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
    setting: Setting, probes: list[tuple[SourceName, int]], renewed: list[int]
) -> None:
    setting.tell(*(probe(source, second) for source, second in probes))
    assert setting.writer.heard() == [LeaseProbe(round=second, sent_ns=second * 10**9) for second in renewed]


def synced(source: SourceName, as_of: float, listing: int) -> SourceSynced:
    return SourceSynced(source=source, listing=listing, as_of=as_of)


def test_a_probe_carries_the_time_of_the_oldest_listing(setting: Setting) -> None:
    for number, listed in enumerate(((5.0, 6.0, 7.0), (9.0, 6.0, 7.0), (9.0, 11.0, 10.0)), start=1):
        for source, as_of in zip(SourceName, listed, strict=True):
            revision = setting.revision() if source == SourceName.SERVICES else 0
            setting.tell(replace(synced(source, as_of, number), revision=revision))
        setting.tell(*(probe(source, number) for source in SourceName))
    found = [each.as_of for each in setting.writer.heard() if isinstance(each, LeaseProbe)]
    assert found == [5.0, 6.0, 9.0]


def test_a_listing_that_does_not_cover_the_subscription_does_not_date_a_probe(setting: Setting) -> None:
    setting.open(DNS, SERVICE, pod())
    setting.writer.heard()
    for source in (SourceName.POLICIES, SourceName.ENDPOINTS):
        setting.tell(synced(source, 9.0, 2))
    setting.tell(replace(synced(SourceName.SERVICES, 9.0, 2), revision=setting.revision() - 1))
    setting.tell(*(probe(source, 1) for source in SourceName))
    assert [each.as_of for each in setting.writer.heard() if isinstance(each, LeaseProbe)] == [0.0]


def test_a_probe_waits_until_the_facts_before_it_are_decided_and_sent(setting: Setting) -> None:
    setting.open(VIP, pod())
    setting.writer.heard()
    for source in SourceName:
        setting.ref.tell(probe(source, 1))
    fence(setting.ref)
    setting.writer.heard()
    setting.tell(*(probe(source, 2) for source in list(SourceName)[:2]), replace_pod(), probe(SourceName.ENDPOINTS, 2))
    assert [type(each) for each in setting.writer.heard()] == [ApplyDesiredState, LeaseProbe]


def replace_pod() -> Message:
    return fact(replace(pod(), ready=False))


def test_the_lease_is_renewed_when_a_restarted_qos_ticker_counts_from_one_again(setting: Setting) -> None:
    for second, number in ((50, 50), (51, 1)):
        setting.tell(*(probe(source, second, number) for source in SourceName))
    assert [each.round for each in setting.writer.heard() if isinstance(each, LeaseProbe)] == [50, 1]


def test_one_subscription_has_the_services_of_both_kinds_of_policies(setting: Setting) -> None:
    web = NamespacedName("default", "web")
    setting.tell(fact(DNS), fact(policy(PolicySpec(frontend=ServiceFrontend(service=web)), kind=PolicyKind.BALANCING)))
    assert setting.subscriptions() == []
    setting.sync(SourceName.POLICIES)
    (subscription,) = setting.subscriptions()
    assert subscription.names == {NAME, web}


# --- in the controller ------------------------------------------------------------------------------------------------


class ClusterSetting(Setting):
    """The resolver of a controller, which sends verdicts to StatusWriter and subscribes to Pods."""

    def __init__(self) -> None:
        super().__init__(ClusterDecision(RedirectSettings()))
        self.status_writer = Peer("StatusWriter")
        self._pod_revision = 0

    def pod_subscriptions(self) -> list[WatchPods]:
        """Those that were sent since the last call."""
        found = [each for each in self.watchers["EndpointWatcher"].heard() if isinstance(each, WatchPods)]
        self._pod_revision = found[-1].revision if found else self._pod_revision
        return found

    def verdicts(self) -> list[ApplyVerdicts]:
        heard = self.status_writer.heard()
        assert self.writer.heard() == [], "there is no kernel side"
        return [each for each in heard if isinstance(each, ApplyVerdicts)]

    def counts(self) -> list[tuple[str, int, int]]:
        return [(v.key.name, v.nodes_ready, v.nodes_selected) for message in self.verdicts() for v in message.verdicts]

    def cover_services(self, listing: int = 1) -> None:
        self.tell(SourceSynced(source=SourceName.SERVICES, listing=listing, revision=self.revision()))

    def cover_pods(self, listing: int = 1) -> None:
        self.pod_subscriptions()
        self.tell(SourceSynced(source=SourceName.ENDPOINTS, listing=listing, revision=self._pod_revision))

    def begin(self, *facts: Policy | Service | Pod | Node) -> None:
        """Syncs all sources, with these facts, and drops the messages that this causes."""
        self.tell(*(fact(each) for each in facts if isinstance(each, Policy)))
        self.sync(SourceName.POLICIES)
        self.tell(*(fact(each) for each in facts if not isinstance(each, Policy)))
        self.cover_services()
        self.cover_pods()
        (first,) = self.verdicts()
        assert first.complete
        self.resolved()


@pytest.fixture
def cluster() -> ClusterSetting:
    return ClusterSetting()


NODES = (Node(name="a"), Node(name="b"))
ON_A, ON_B = (replace(pod(f"cache-{name}"), node=name) for name in "ab")
IN_DNS, ANYWHERE = (PodQuery(namespace=each, selector=SELECTOR) for each in ("kube-system", ""))


def test_a_controller_subscribes_to_the_pods_that_policies_select_once_the_policies_are_known(
    cluster: ClusterSetting,
) -> None:
    cluster.tell(fact(DNS), fact(replace(VIP, key=replace(KEY, name="vip"))))
    assert cluster.pod_subscriptions() == []
    cluster.sync(SourceName.POLICIES)
    (subscription,) = cluster.pod_subscriptions()
    assert subscription.queries == {IN_DNS, ANYWHERE}


def test_an_agent_does_not_subscribe_to_pods(setting: Setting) -> None:
    setting.open(VIP, pod())
    assert not [each for each in setting.watchers["EndpointWatcher"].heard() if isinstance(each, WatchPods)]


@pytest.mark.parametrize("covers", [("services", "pods"), ("pods", "services")], ids=" ".join)
def test_nothing_is_sent_before_every_subscription_is_covered(cluster: ClusterSetting, covers: tuple[str, str]) -> None:
    cluster.tell(fact(DNS), *(fact(each) for each in (*NODES, ON_A)))
    cluster.sync(SourceName.POLICIES)
    cluster.tell(fact(SERVICE))
    for each in covers:
        assert cluster.verdicts() == []
        if each == "services":
            cluster.cover_services()
        else:
            cluster.cover_pods()
    (message,) = cluster.verdicts()
    assert message.complete
    assert [(each.nodes_ready, each.nodes_selected) for each in message.verdicts] == [(1, 2)]
    assert cluster.resolved()[0].complete


def test_a_listing_of_pods_that_answers_an_older_subscription_does_not_count(cluster: ClusterSetting) -> None:
    cluster.sync(SourceName.POLICIES)
    (older,) = cluster.pod_subscriptions()
    cluster.tell(fact(DNS))
    (subscription,) = cluster.pod_subscriptions()
    cluster.cover_services()
    cluster.tell(SourceSynced(source=SourceName.ENDPOINTS, listing=1, revision=older.revision))
    assert cluster.verdicts() == []
    assert cluster.pod_subscriptions() == [subscription], (
        "the request is repeated, since the watcher may have been restarted"
    )


def test_no_pod_is_removed_by_a_restarted_watcher_that_does_not_know_the_subscription(cluster: ClusterSetting) -> None:
    cluster.begin(DNS, SERVICE, *NODES, ON_A)
    cluster.pod_subscriptions()
    cluster.tell(*(NodeUpserted(node=each, listing=2, received_at=AT) for each in NODES))
    cluster.tell(SourceSynced(source=SourceName.ENDPOINTS, listing=2, revision=0))
    assert cluster.verdicts() == []
    assert len(cluster.pod_subscriptions()) == 1
    cluster.tell(fact(ON_B, listing=2))
    cluster.cover_pods(listing=2)
    assert cluster.counts() == [("p", 2, 2), ("p", 1, 2)], (
        "one Pod appeared, and the other went while the watcher did not run"
    )


def test_a_new_policy_waits_for_its_service_and_its_pods_without_delaying_others(cluster: ClusterSetting) -> None:
    other = policy(address_spec(), name="other", policy_id=8)
    cluster.begin(other, *NODES, ON_A)
    cluster.tell(fact(DNS))
    assert cluster.verdicts() == []
    cluster.tell(fact(ON_B))
    assert cluster.counts() == [("other", 2, 2)]
    cluster.tell(fact(SERVICE))
    cluster.cover_services()
    assert cluster.verdicts() == []
    cluster.cover_pods()
    assert cluster.counts() == [("p", 2, 2)]


def test_a_policy_that_selects_other_pods_keeps_its_verdict_until_they_are_known(cluster: ClusterSetting) -> None:
    cluster.begin(VIP, *NODES, ON_A)
    assert VIP.spec
    web = LabelSelector(match_labels=(("app", "web"),))
    cluster.tell(fact(replace(VIP, spec=replace(VIP.spec, backend_selector=web))))
    (subscription,) = cluster.pod_subscriptions()
    assert subscription.queries == {PodQuery(namespace="", selector=web)}
    assert cluster.verdicts() == []
    cluster.tell(PodRemoved(key=ON_A.key, received_at=AT))  # its watch has ended
    cluster.tell(fact(replace(pod("web-b", app="web"), node="b")))
    cluster.cover_pods()
    assert cluster.counts() == [], "still one node"
    cluster.tell(fact(replace(pod("web-a", app="web"), node="a")))
    assert cluster.counts() == [("p", 2, 2)]


def test_pods_that_no_policy_selects_are_forgotten_when_their_watch_ends(cluster: ClusterSetting) -> None:
    cluster.begin(VIP, *NODES, ON_A)
    cluster.tell(PolicyRemoved(key=KEY, received_at=AT))
    (subscription,) = cluster.pod_subscriptions()
    assert subscription.queries == frozenset()
    cluster.tell(PodRemoved(key=ON_A.key, received_at=AT))
    cluster.cover_pods()
    cluster.verdicts()
    cluster.tell(fact(VIP))
    assert cluster.verdicts() == []
    cluster.cover_pods()
    assert cluster.counts() == [("p", 0, 2)]


def test_pods_that_were_unsubscribed_meanwhile_are_waited_for_again(cluster: ClusterSetting) -> None:
    cluster.begin(VIP, *NODES, ON_A)
    cluster.tell(PolicyRemoved(key=KEY, received_at=AT))
    cluster.verdicts()
    cluster.tell(fact(VIP))
    assert cluster.verdicts() == []
    cluster.cover_pods()
    assert cluster.counts() == [("p", 1, 2)]


def test_pods_and_nodes_that_a_new_listing_does_not_have_are_removed(cluster: ClusterSetting) -> None:
    cluster.begin(VIP, *NODES, ON_A, ON_B)
    cluster.tell(fact(NODES[0], 2), fact(ON_B, 2))
    cluster.cover_pods(listing=2)
    assert cluster.counts() == [("p", 0, 1)]


def test_a_restarted_writer_gets_all_verdicts(cluster: ClusterSetting) -> None:
    cluster.begin(VIP, *NODES, ON_A)
    cluster.tell(ResyncDesiredState())
    (message,) = cluster.verdicts()
    assert message.complete and [each.key for each in message.verdicts] == [KEY]


def test_the_verdict_on_a_loser_names_the_winner_and_the_loser_takes_over_when_it_is_gone(
    cluster: ClusterSetting,
) -> None:
    young = policy(address_spec(), name="young", policy_id=8, created="2026-01-01T00:00:00Z")
    cluster.begin(VIP, *NODES, ON_A)
    cluster.tell(fact(young))
    (message,) = cluster.verdicts()
    (verdict,) = message.verdicts
    assert (verdict.reason, verdict.message) == (
        "Conflict",
        "frontend 169.254.0.90:53/UDP is held by LocalRedirectPolicy p, which is older",
    )
    cluster.tell(PolicyRemoved(key=KEY, received_at=AT))
    (message,) = cluster.verdicts()
    assert message.removed == (KEY,)
    assert [(each.key.name, each.reason, each.nodes_ready) for each in message.verdicts] == [("young", "Accepted", 1)]


def test_p20_the_addresses_of_all_pods_are_sent_when_they_change(setting: Setting) -> None:
    setting.open(VIP, pod())
    setting.tell(fact(replace(pod("stranger", "10.1.0.9", app="web"), ready=False)))
    (applied,) = setting.applied()
    assert (applied.complete, applied.upserted) == (False, ())
    assert set(map(str, applied.pod_addresses or ())) == {"10.1.0.1", "fd01::1", "10.1.0.9"}
    setting.tell(fact(pod("stranger", "10.1.0.9", app="web")))
    assert setting.applied() == [], "nothing that anybody needs to know has changed"
    setting.tell(fact(replace(pod("stranger", "10.1.0.9", app="web"), finished=True)))
    (applied,) = setting.applied()
    assert set(map(str, applied.pod_addresses or ())) == {"10.1.0.1", "fd01::1"}
    setting.tell(ResyncDesiredState())
    (applied,) = setting.applied()
    assert applied.complete and set(map(str, applied.pod_addresses or ())) == {"10.1.0.1", "fd01::1"}
