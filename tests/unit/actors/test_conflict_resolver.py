"""ConflictResolver alone: what it tells its peers, and when."""

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
"""When the facts of these tests were received."""
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
    """A resolver among recorded peers."""

    def __init__(self, decision: Decision[Any] | None = None) -> None:
        self.watchers = {name: Peer(name) for name in ("PolicyWatcher", "ServiceWatcher", "EndpointWatcher")}
        self.writer = Peer("MapWriter")
        self.reporters = [Peer("StatusReporter"), Peer("MetricsExporter")]
        decision = decision or AgentDecision(RedirectSettings())
        self.ref = ConflictResolver.start(datapath=DatapathSettings(), redirect=RedirectSettings(), decision=decision)
        self._revision = 0

    def tell(self, *messages: Message) -> None:
        """Returns when they are handled, and what they led to is decided and told."""
        for message in messages:
            self.ref.tell(message)
        fence(self.ref)  # the facts, behind which a Flush may queue
        fence(self.ref)  # the Flush

    def sync(self, *sources: SourceName) -> None:
        """Ends a listing of each; that of Services covers what is wanted now."""
        for source in sources or SourceName:
            wanted = self.revision() if source == SourceName.SERVICES else 0
            self.tell(SourceSynced(source=source, listing=1, revision=wanted))

    def revision(self) -> int:
        """Of the newest WatchServices, 0 when there was none."""
        self.wishes()
        return self._revision

    def wishes(self) -> list[WatchServices]:
        """Told since the last call."""
        found = [each for each in self.watchers["ServiceWatcher"].heard() if isinstance(each, WatchServices)]
        self._revision = found[-1].revision if found else self._revision
        return found

    def applied(self) -> list[ApplyDesiredState]:
        heard = self.writer.heard()
        assert all(isinstance(each, ApplyDesiredState) for each in heard)
        return [each for each in heard if isinstance(each, ApplyDesiredState)]

    def resolved(self) -> list[PoliciesResolved]:
        """Told to both reporters alike."""
        first, second = (peer.heard() for peer in self.reporters)
        assert first == second
        return [each for each in first if isinstance(each, PoliciesResolved)]

    def states(self) -> list[dict[str, PolicyState]]:
        return [{each.key.name: each.state for each in told.conditions} for told in self.resolved()]

    def open(self, *facts: Policy | Service | Pod | Node) -> None:
        """All sources synced, with these facts; what was told until then is forgotten."""
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
def test_nothing_is_told_before_every_source_is_synced_and_the_first_is_everything(
    setting: Setting, order: Sequence[SourceName]
) -> None:
    setting.tell(fact(DNS), fact(pod()))
    for source in order:
        assert setting.applied() == []
        setting.sync(source)
    if order.index(SourceName.SERVICES) < order.index(SourceName.POLICIES):
        # That listing covered no wish: which Services are wanted was not known.
        assert setting.applied() == []
        setting.sync(SourceName.SERVICES)
    (applied,) = setting.applied()
    (resolved,) = setting.resolved()
    assert applied.complete and resolved.complete
    assert [each.key for each in applied.upserted] == [each.key for each in resolved.conditions] == [KEY]


def test_a_cluster_without_policies_opens_too(setting: Setting) -> None:
    setting.sync(SourceName.POLICIES)
    (wish,) = setting.wishes()
    assert wish.names == frozenset()
    setting.sync(SourceName.ENDPOINTS, SourceName.SERVICES)
    (applied,) = setting.applied()
    assert (applied.complete, applied.upserted) == (True, ())


def test_a_listing_of_services_that_an_older_wish_led_to_opens_nothing(setting: Setting) -> None:
    setting.sync(SourceName.POLICIES, SourceName.ENDPOINTS)
    older = setting.revision()
    setting.tell(fact(DNS))
    (wish,) = setting.wishes()
    assert wish.names == {NAME} and wish.revision > older
    setting.tell(SourceSynced(source=SourceName.SERVICES, listing=1, revision=older))
    assert setting.applied() == []
    assert setting.wishes() == [wish], "it is repeated: the watcher may be a new one"
    setting.sync(SourceName.SERVICES)
    assert [each.complete for each in setting.applied()] == [True]


def test_an_answer_to_the_resolver_before_it_opens_nothing(setting: Setting) -> None:
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


def test_a_service_that_a_later_policy_names_is_picked_up_when_its_fact_comes(setting: Setting) -> None:
    setting.open(pod())
    setting.tell(fact(DNS))
    assert setting.states() == [{"p": PolicyState.NO_FRONTEND}]
    setting.tell(fact(SERVICE))
    assert setting.states() == [{"p": PolicyState.ACTIVE}]


def test_a_service_that_nobody_names_any_more_is_forgotten(setting: Setting) -> None:
    setting.open(DNS, SERVICE, pod())
    setting.wishes()
    setting.tell(PolicyRemoved(key=KEY, received_at=AT))
    (wish,) = setting.wishes()
    assert wish.names == frozenset()
    setting.tell(fact(SERVICE))  # was on its way when the wish was told
    setting.resolved()
    setting.tell(fact(DNS))
    assert setting.states() == [{"p": PolicyState.NO_FRONTEND}]


@pytest.mark.parametrize(
    ("messages", "state"),
    [
        pytest.param([fact(pod(ready=False))], PolicyState.NO_BACKEND, id="Pod not Ready"),
        pytest.param([PodRemoved(key=pod().key, received_at=AT)], PolicyState.NO_BACKEND, id="Pod gone"),
        pytest.param([ServiceRemoved(key=NAME, received_at=AT)], PolicyState.NO_FRONTEND, id="Service gone"),
        pytest.param(
            [fact(replace(SERVICE, cluster_ips=()))], PolicyState.NO_FRONTEND, id="Service headless from now on"
        ),
        pytest.param([NodeRemoved(name="n", received_at=AT)], PolicyState.NODE_NOT_SELECTED, id="Node gone"),
        pytest.param(
            [SourceSynced(source=SourceName.ENDPOINTS, listing=2)],
            PolicyState.NODE_NOT_SELECTED,
            id="a new listing without them",
        ),
    ],
)
def test_a_change_is_told_once_with_what_changed_alone(
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


def test_a_removed_policy_is_named(setting: Setting) -> None:
    setting.open(VIP, pod())
    setting.tell(PolicyRemoved(key=KEY, received_at=AT))
    (applied,) = setting.applied()
    (resolved,) = setting.resolved()
    assert applied.removed == resolved.removed == (KEY,)


def test_a_burst_is_decided_once_and_timed_from_its_oldest_event() -> None:
    writer = Peer("MapWriter")
    wishes = Peer("ServiceWatcher")
    resolver = ConflictResolver(
        datapath=DatapathSettings(), redirect=RedirectSettings(), decision=AgentDecision(RedirectSettings())
    )  # its thread is this test

    def handle(*messages: Message) -> None:
        for message in messages:
            resolver.on_receive(message)
        assert resolver.actor_inbox.get().message == Flush()
        assert resolver.actor_inbox.empty(), "one Flush, however many facts"
        resolver.on_receive(Flush())

    handle(fact(VIP), *(SourceSynced(source=source, listing=1) for source in SourceName))
    wish = wishes.next()
    assert isinstance(wish, WatchServices)
    handle(SourceSynced(source=SourceName.SERVICES, listing=1, revision=wish.revision))
    pods = [pod(f"p{n}", f"10.1.0.{n}") for n in range(1, 50)]
    handle(*(PodUpserted(pod=each, listing=1, received_at=100.0 - n) for n, each in enumerate(pods)))
    first, burst = writer.heard()
    assert isinstance(first, ApplyDesiredState) and first.complete
    assert isinstance(burst, ApplyDesiredState) and burst.received_at == 52.0
    assert len(burst.upserted[0].frontends[0].backends) == 49


def test_what_changes_nothing_is_not_told(setting: Setting) -> None:
    setting.open(VIP, pod())
    setting.tell(fact(pod(), listing=2), fact(pod("other", app="other")), fact(SERVICE))
    setting.tell(SourceSynced(source=SourceName.POLICIES, listing=1))
    assert (setting.applied(), setting.resolved()) == ([], [])


@pytest.mark.parametrize("is_open", [True, False])
def test_a_peer_that_starts_anew_gets_everything_once_the_sources_are_synced(setting: Setting, is_open: bool) -> None:
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
def test_p8_the_loser_is_out_of_force_and_the_number_of_losers_is_told(setting: Setting, later: int) -> None:
    pair = [VIP, policy(address_spec(), name="young", policy_id=8, created="2026-01-01T00:00:00Z")]
    setting.open(pair[1 - later], pod())
    setting.tell(fact(pair[later]))
    resolved = setting.resolved()[-1]
    assert resolved.conflicts == 1
    (loser,) = [each for told in setting.applied() for each in told.upserted if each.key.name == "young"][-1:]
    assert not loser.in_force and not loser.frontends


def test_p8_a_number_that_an_older_policy_has_is_not_shared(setting: Setting) -> None:
    setting.open(VIP, pod())
    setting.tell(fact(policy(address_spec("169.254.0.91"), name="young", created="2026-01-01T00:00:00Z")))
    (applied,) = setting.applied()
    assert [(each.key.name, each.in_force) for each in applied.upserted] == [("young", False)]


def test_p8_a_balancing_policy_that_loses_counts_though_it_has_no_condition(setting: Setting) -> None:
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
    told = {name: state for states in setting.states() for name, state in states.items()}
    assert told == {"invalid": PolicyState.INVALID, "disabled": PolicyState.DISABLED}


def probe(source: SourceName, second: int, number: int = 0) -> LeaseProbe:
    return LeaseProbe(round=number or second, sent_ns=second * 10**9, passed_by=source)


@pytest.mark.parametrize(
    ("probes", "renewed"),
    [
        pytest.param([(SourceName.POLICIES, 1), (SourceName.SERVICES, 1)], [], id="one watcher is missing"),
        pytest.param([(source, 1) for source in SourceName], [1], id="all have passed it on"),
        pytest.param([(source, 1) for source in SourceName] * 2, [1], id="again is not news"),
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
            id="a watcher that lags renews as of what it has seen",
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


def test_a_probe_says_as_of_when_the_oldest_of_the_sources_was_listed(setting: Setting) -> None:
    for number, listed in enumerate(((5.0, 6.0, 7.0), (9.0, 6.0, 7.0), (9.0, 11.0, 10.0)), start=1):
        for source, as_of in zip(SourceName, listed, strict=True):
            wanted = setting.revision() if source == SourceName.SERVICES else 0
            setting.tell(replace(synced(source, as_of, number), revision=wanted))
        setting.tell(*(probe(source, number) for source in SourceName))
    told = [each.as_of for each in setting.writer.heard() if isinstance(each, LeaseProbe)]
    assert told == [5.0, 6.0, 9.0]


def test_a_listing_of_services_that_does_not_cover_what_is_wanted_is_not_as_of_anything(setting: Setting) -> None:
    setting.open(DNS, SERVICE, pod())
    setting.writer.heard()
    for source in (SourceName.POLICIES, SourceName.ENDPOINTS):
        setting.tell(synced(source, 9.0, 2))
    setting.tell(replace(synced(SourceName.SERVICES, 9.0, 2), revision=setting.revision() - 1))
    setting.tell(*(probe(source, 1) for source in SourceName))
    assert [each.as_of for each in setting.writer.heard() if isinstance(each, LeaseProbe)] == [0.0]


def test_a_probe_waits_until_what_was_told_before_it_is_decided_and_told_on(setting: Setting) -> None:
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


def test_the_lease_goes_on_when_a_new_qos_ticker_counts_from_one_again(setting: Setting) -> None:
    for second, number in ((50, 50), (51, 1)):
        setting.tell(*(probe(source, second, number) for source in SourceName))
    assert [each.round for each in setting.writer.heard() if isinstance(each, LeaseProbe)] == [50, 1]


def test_the_services_of_both_kinds_of_policies_are_wanted_in_one_wish(setting: Setting) -> None:
    web = NamespacedName("default", "web")
    setting.tell(fact(DNS), fact(policy(PolicySpec(frontend=ServiceFrontend(service=web)), kind=PolicyKind.BALANCING)))
    assert setting.wishes() == []
    setting.sync(SourceName.POLICIES)
    (wish,) = setting.wishes()
    assert wish.names == {NAME, web}


# --- the controller's -------------------------------------------------------------------------------------------------


class ClusterSetting(Setting):
    """A controller's resolver: its verdicts go to StatusWriter, and Pods are asked for."""

    def __init__(self) -> None:
        super().__init__(ClusterDecision(RedirectSettings()))
        self.status_writer = Peer("StatusWriter")
        self._pod_revision = 0

    def pod_wishes(self) -> list[WatchPods]:
        """Told since the last call."""
        found = [each for each in self.watchers["EndpointWatcher"].heard() if isinstance(each, WatchPods)]
        self._pod_revision = found[-1].revision if found else self._pod_revision
        return found

    def verdicts(self) -> list[ApplyVerdicts]:
        heard = self.status_writer.heard()
        assert self.writer.heard() == [], "there is no kernel side"
        return [each for each in heard if isinstance(each, ApplyVerdicts)]

    def counts(self) -> list[tuple[str, int, int]]:
        return [(v.key.name, v.nodes_ready, v.nodes_selected) for told in self.verdicts() for v in told.verdicts]

    def cover_services(self, listing: int = 1) -> None:
        self.tell(SourceSynced(source=SourceName.SERVICES, listing=listing, revision=self.revision()))

    def cover_pods(self, listing: int = 1) -> None:
        self.pod_wishes()
        self.tell(SourceSynced(source=SourceName.ENDPOINTS, listing=listing, revision=self._pod_revision))

    def begin(self, *facts: Policy | Service | Pod | Node) -> None:
        """All sources synced, with these facts; what was told until then is forgotten."""
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


def test_the_pods_that_policies_select_are_asked_for_once_the_policies_are_known(cluster: ClusterSetting) -> None:
    cluster.tell(fact(DNS), fact(replace(VIP, key=replace(KEY, name="vip"))))
    assert cluster.pod_wishes() == []
    cluster.sync(SourceName.POLICIES)
    (wish,) = cluster.pod_wishes()
    assert wish.queries == {IN_DNS, ANYWHERE}


def test_an_agent_asks_for_no_pods(setting: Setting) -> None:
    setting.open(VIP, pod())
    assert not [each for each in setting.watchers["EndpointWatcher"].heard() if isinstance(each, WatchPods)]


@pytest.mark.parametrize("covers", [("services", "pods"), ("pods", "services")], ids=" ".join)
def test_nothing_is_told_before_every_wish_is_covered(cluster: ClusterSetting, covers: tuple[str, str]) -> None:
    cluster.tell(fact(DNS), *(fact(each) for each in (*NODES, ON_A)))
    cluster.sync(SourceName.POLICIES)
    cluster.tell(fact(SERVICE))
    for each in covers:
        assert cluster.verdicts() == []
        if each == "services":
            cluster.cover_services()
        else:
            cluster.cover_pods()
    (told,) = cluster.verdicts()
    assert told.complete
    assert [(each.nodes_ready, each.nodes_selected) for each in told.verdicts] == [(1, 2)]
    assert cluster.resolved()[0].complete


def test_a_listing_that_an_older_wish_led_to_covers_nothing(cluster: ClusterSetting) -> None:
    cluster.sync(SourceName.POLICIES)
    (older,) = cluster.pod_wishes()
    cluster.tell(fact(DNS))
    (wish,) = cluster.pod_wishes()
    cluster.cover_services()
    cluster.tell(SourceSynced(source=SourceName.ENDPOINTS, listing=1, revision=older.revision))
    assert cluster.verdicts() == []
    assert cluster.pod_wishes() == [wish], "it is repeated: the watcher may be a new one"


def test_a_restarted_watcher_that_knows_no_wish_takes_no_pod_away(cluster: ClusterSetting) -> None:
    cluster.begin(DNS, SERVICE, *NODES, ON_A)
    cluster.pod_wishes()
    cluster.tell(*(NodeUpserted(node=each, listing=2, received_at=AT) for each in NODES))
    cluster.tell(SourceSynced(source=SourceName.ENDPOINTS, listing=2, revision=0))
    assert cluster.verdicts() == []
    assert len(cluster.pod_wishes()) == 1
    cluster.tell(fact(ON_B, listing=2))
    cluster.cover_pods(listing=2)
    assert cluster.counts() == [("p", 2, 2), ("p", 1, 2)], "told while it was away; and gone from there meanwhile"


def test_a_new_policy_waits_for_its_service_and_its_pods_and_holds_up_no_other(cluster: ClusterSetting) -> None:
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
    (wish,) = cluster.pod_wishes()
    assert wish.queries == {PodQuery(namespace="", selector=web)}
    assert cluster.verdicts() == []
    cluster.tell(PodRemoved(key=ON_A.key, received_at=AT))  # its watch has ended
    cluster.tell(fact(replace(pod("web-b", app="web"), node="b")))
    cluster.cover_pods()
    assert cluster.counts() == [], "one node, as before"
    cluster.tell(fact(replace(pod("web-a", app="web"), node="a")))
    assert cluster.counts() == [("p", 2, 2)]


def test_pods_that_no_policy_selects_any_more_are_forgotten_when_their_watch_ends(cluster: ClusterSetting) -> None:
    cluster.begin(VIP, *NODES, ON_A)
    cluster.tell(PolicyRemoved(key=KEY, received_at=AT))
    (wish,) = cluster.pod_wishes()
    assert wish.queries == frozenset()
    cluster.tell(PodRemoved(key=ON_A.key, received_at=AT))
    cluster.cover_pods()
    cluster.verdicts()
    cluster.tell(fact(VIP))
    assert cluster.verdicts() == []
    cluster.cover_pods()
    assert cluster.counts() == [("p", 0, 2)]


def test_pods_whose_watch_was_given_up_meanwhile_are_waited_for_again(cluster: ClusterSetting) -> None:
    cluster.begin(VIP, *NODES, ON_A)
    cluster.tell(PolicyRemoved(key=KEY, received_at=AT))
    cluster.verdicts()
    cluster.tell(fact(VIP))
    assert cluster.verdicts() == []
    cluster.cover_pods()
    assert cluster.counts() == [("p", 1, 2)]


def test_a_new_listing_ends_pods_and_nodes_that_it_does_not_tell(cluster: ClusterSetting) -> None:
    cluster.begin(VIP, *NODES, ON_A, ON_B)
    cluster.tell(fact(NODES[0], 2), fact(ON_B, 2))
    cluster.cover_pods(listing=2)
    assert cluster.counts() == [("p", 0, 1)]


def test_a_writer_that_starts_anew_gets_all_verdicts(cluster: ClusterSetting) -> None:
    cluster.begin(VIP, *NODES, ON_A)
    cluster.tell(ResyncDesiredState())
    (told,) = cluster.verdicts()
    assert told.complete and [each.key for each in told.verdicts] == [KEY]


def test_the_loser_of_a_conflict_is_judged_with_the_winners_name_and_takes_over(cluster: ClusterSetting) -> None:
    young = policy(address_spec(), name="young", policy_id=8, created="2026-01-01T00:00:00Z")
    cluster.begin(VIP, *NODES, ON_A)
    cluster.tell(fact(young))
    (told,) = cluster.verdicts()
    (verdict,) = told.verdicts
    assert (verdict.reason, verdict.message) == (
        "Conflict",
        "frontend 169.254.0.90:53/UDP is held by LocalRedirectPolicy p, which is older",
    )
    cluster.tell(PolicyRemoved(key=KEY, received_at=AT))
    (told,) = cluster.verdicts()
    assert told.removed == (KEY,)
    assert [(each.key.name, each.reason, each.nodes_ready) for each in told.verdicts] == [("young", "Accepted", 1)]
