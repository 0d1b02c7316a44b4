"""The watchers: source events become facts, each watcher for its own kinds."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pykka
import pytest

from actors.framework.messages import ActorFailed, Message
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
from actors.messages.reports import SourceHeard
from actors.messages.subscriptions import ResyncSource, WatchPods, WatchServices
from actors.messages.upkeep import LeaseProbe
from actors.messages.verdicts import PolicyStatusGone, PolicyStatusSeen
from actors.watching.endpoint_watcher import EndpointWatcher
from actors.watching.policy_watcher import PolicyWatcher
from actors.watching.service_watcher import ServiceWatcher
from actors.watching.watcher import Watcher
from config.domain.ids import NamespacedName, ObjectKey, PolicyKey, PolicyKind
from k8s.api.trouble import Trouble, TroubleKind
from k8s.objects.model import KubeObject, LabelSelector, Node, Pod, PodQuery, Policy, PolicyStatus, Service
from k8s.sources.source import Deliver, Heard, ListingEnded, ListingStarted, Removed, SourceEvent, Upserted, Wanted
from tests.unit.peers import WAIT_SECONDS, Peer, fence, wait_until_dead


class FakeSource:
    """Delivers what the test says; `end` makes it return by itself."""

    def __init__(self, deliver: Deliver) -> None:
        self.deliver = deliver
        self.end = threading.Event()
        self.relisted: list[float] = []
        self.wanted: frozenset[Wanted] = frozenset()
        self.revision = 0

    def run(self) -> None:
        self.end.wait(WAIT_SECONDS)

    def stop(self) -> None:
        self.end.set()

    def relist(self, since: float = 0.0) -> None:
        self.relisted.append(since)

    def subscribe(self, wanted: frozenset[Wanted], revision: int) -> None:
        self.wanted, self.revision = wanted, revision


class Watched:
    """A watcher over a fake source, and its peers."""

    def __init__(self, watcher: type[Watcher]) -> None:
        self.resolver, self.exporter, self.supervisor = (
            Peer("ConflictResolver"),
            Peer("MetricsExporter"),
            Peer("Supervisor"),
        )
        self._made: list[FakeSource] = []
        self.ref: pykka.ActorRef[Any] = watcher.start(source=self._make)

    def _make(self, deliver: Deliver) -> FakeSource:
        self._made.append(FakeSource(deliver))
        return self._made[-1]

    @property
    def source(self) -> FakeSource:
        return self._made[-1]

    def deliver(self, *events: SourceEvent) -> list[Message]:
        """What the resolver hears of these."""
        for event in events:
            self.source.deliver(event)
        fence(self.ref)
        return self.resolver.heard()

    def tell(self, message: Message) -> list[Message]:
        self.ref.tell(message)
        fence(self.ref)
        return self.resolver.heard()


def listed(*objects: KubeObject, reason: str = "start") -> list[SourceEvent]:
    upserts = [Upserted(object=each, listing=1, received_at=2.5) for each in objects]
    return [ListingStarted(listing=1, reason=reason), *upserts, ListingEnded(listing=1, as_of=2.0)]


DNS = NamespacedName("kube-system", "dns")
WEB = NamespacedName("shop", "web")
POLICY = Policy(key=PolicyKey(PolicyKind.LOCAL_REDIRECT, "dns"), policy_id=7, spec=None, faults=("no frontend",))
SERVICE = Service(key=DNS)
POD = Pod(key=NamespacedName("kube-system", "dns-1"))
NODE = Node(name="node-a")


@pytest.mark.parametrize(
    ("watcher", "object_", "fact"),
    [
        (
            PolicyWatcher,
            POLICY,
            lambda listing: PolicyUpserted(policy=POLICY, listing=listing, received_at=2.5),
        ),
        (EndpointWatcher, POD, lambda listing: PodUpserted(pod=POD, listing=listing, received_at=2.5)),
        (EndpointWatcher, NODE, lambda listing: NodeUpserted(node=NODE, listing=listing, received_at=2.5)),
    ],
    ids=["policy", "pod", "node"],
)
def test_a_listing_becomes_facts_and_a_synced_under_one_number(
    watcher: type[Watcher], object_: KubeObject, fact: Any
) -> None:
    heard = Watched(watcher).deliver(*listed(object_))
    synced = heard[-1]
    assert isinstance(synced, SourceSynced)
    ended = SourceSynced(source=watcher.SOURCE, listing=synced.listing, as_of=2.0)
    assert heard == [fact(synced.listing), ended]


@pytest.mark.parametrize(
    ("watcher", "kind", "key", "fact"),
    [
        (PolicyWatcher, "LocalRedirectPolicy", POLICY.key, PolicyRemoved(key=POLICY.key, received_at=3.0)),
        (EndpointWatcher, "Pod", POD.key, PodRemoved(key=POD.key, received_at=3.0)),
        (EndpointWatcher, "Node", "node-a", NodeRemoved(name="node-a", received_at=3.0)),
    ],
    ids=["policy", "pod", "node"],
)
def test_a_removal_becomes_a_fact(watcher: type[Watcher], kind: str, key: ObjectKey, fact: Message) -> None:
    assert Watched(watcher).deliver(Removed(kind=kind, key=key, received_at=3.0)) == [fact]


def test_numbers_grow_across_listings_and_across_a_restart_of_the_watcher() -> None:
    listings = []
    for _ in range(2):
        watched = Watched(PolicyWatcher)
        for _ in range(2):
            (synced,) = watched.deliver(*listed())
            assert isinstance(synced, SourceSynced)
            listings.append(synced.listing)
        pykka.ActorRegistry.stop_all(timeout=WAIT_SECONDS)
    assert listings == sorted(set(listings))


def test_a_request_to_resync_makes_the_source_list_again() -> None:
    watched = Watched(PolicyWatcher)
    watched.tell(ResyncSource())
    watched.tell(ResyncSource(since=7.5))
    assert watched.source.relisted == [0.0, 7.5]


@pytest.mark.parametrize("watcher", [PolicyWatcher, ServiceWatcher, EndpointWatcher])
def test_a_lease_probe_is_stamped_and_passed_on(watcher: type[Watcher]) -> None:
    probe = LeaseProbe(round=4, sent_ns=99)
    assert Watched(watcher).tell(probe) == [replace(probe, passed_by=watcher.SOURCE)]


def test_how_the_source_stands_is_reported_and_a_listing_with_its_reason() -> None:
    watched = Watched(EndpointWatcher)
    reporter = Peer("StatusReporter")
    trouble = Trouble(TroubleKind.REFUSED, 4.0, "the right to list pods is missing")
    watched.deliver(*listed(POD, reason="overflow"), Heard(3.0), Heard(3.0, trouble))
    told = [
        SourceHeard(source=SourceName.ENDPOINTS, heard_at=None, relist_reason="overflow"),
        SourceHeard(source=SourceName.ENDPOINTS, heard_at=3.0),
        SourceHeard(source=SourceName.ENDPOINTS, heard_at=3.0, trouble=trouble),
    ]
    assert watched.exporter.heard() == told
    assert [each for each in reporter.heard() if isinstance(each, SourceHeard)] == told


def test_a_source_that_ends_by_itself_ends_the_watcher_so_that_it_is_restarted() -> None:
    watched = Watched(PolicyWatcher)
    watched.source.end.set()
    failure = watched.supervisor.next()
    assert isinstance(failure, ActorFailed)
    assert (failure.name, failure.phase) == ("PolicyWatcher", "thread")
    wait_until_dead(watched.ref)


# --- ServiceWatcher: only what is wanted is told ----------------------------------------------------------------------


def _names(heard: list[Message]) -> list[NamespacedName]:
    return [each.service.key for each in heard if isinstance(each, ServiceUpserted)]


def _wanted(heard: list[Message]) -> list[int]:
    return [each.revision for each in heard if isinstance(each, SourceSynced)]


def test_a_service_that_no_policy_names_is_not_told() -> None:
    heard = Watched(ServiceWatcher).deliver(*listed(SERVICE))
    assert (_names(heard), _wanted(heard)) == ([], [0])


def test_services_wanted_after_the_listing_are_told_at_once_and_the_wish_is_confirmed() -> None:
    watched = Watched(ServiceWatcher)
    watched.deliver(*listed(SERVICE, Service(key=WEB)))
    heard = watched.tell(WatchServices(names=frozenset({DNS}), revision=1))
    assert (_names(heard), _wanted(heard)) == ([DNS], [1])


def test_services_wanted_before_the_listing_are_told_with_it() -> None:
    watched = Watched(ServiceWatcher)
    assert watched.tell(WatchServices(names=frozenset({DNS}), revision=3)) == []
    heard = watched.deliver(*listed(SERVICE, Service(key=WEB)))
    assert (_names(heard), _wanted(heard)) == ([DNS], [3])


def test_a_wish_is_passed_on_to_the_source_and_confirmed_once_it_is_covered() -> None:
    watched = Watched(ServiceWatcher)
    watched.deliver(ListingStarted(1, "start"), ListingEnded(1, 2.0, 0))
    assert watched.tell(WatchServices(names=frozenset({DNS}), revision=5)) == []
    assert (watched.source.wanted, watched.source.revision) == (frozenset({DNS}), 5)
    heard = watched.deliver(Upserted(SERVICE, 1, 2.5), ListingEnded(1, 2.0, 5))
    assert (_names(heard), _wanted(heard)) == ([DNS], [5])


def test_a_listing_that_covers_an_older_wish_confirms_nothing() -> None:
    watched = Watched(ServiceWatcher)
    watched.tell(WatchServices(names=frozenset({DNS, WEB}), revision=5))
    assert watched.deliver(ListingStarted(1, "start"), ListingEnded(1, 2.0, 4)) == []


def test_a_resolver_that_lost_everything_is_told_all_that_it_wants_again() -> None:
    watched = Watched(ServiceWatcher)
    watched.deliver(*listed(SERVICE))
    wish = WatchServices(names=frozenset({DNS}), revision=1)
    assert _names(watched.tell(wish)) == _names(watched.tell(wish)) == [DNS]


@pytest.mark.parametrize(("wanted", "told"), [(True, True), (False, False)])
def test_the_removal_of_a_service_is_told_when_it_is_wanted(*, wanted: bool, told: bool) -> None:
    watched = Watched(ServiceWatcher)
    watched.deliver(*listed(SERVICE))
    watched.tell(WatchServices(names=frozenset({DNS} if wanted else ()), revision=1))
    heard = watched.deliver(Removed(kind="Service", key=DNS, received_at=3.0))
    assert heard == ([ServiceRemoved(key=DNS, received_at=3.0)] if told else [])


def test_a_service_that_a_new_listing_no_longer_has_is_not_told_to_later_wishes() -> None:
    watched = Watched(ServiceWatcher)
    watched.deliver(*listed(SERVICE))
    watched.deliver(*listed(reason="requested"))
    heard = watched.tell(WatchServices(names=frozenset({DNS}), revision=1))
    assert (_names(heard), _wanted(heard)) == ([], [1])


def test_how_the_source_stands_is_told_again_each_second_for_who_was_restarted() -> None:
    watched = Watched(EndpointWatcher)
    watched.deliver(Heard(3.0))
    watched.exporter.heard()
    watched.tell(LeaseProbe(round=1, sent_ns=1))
    assert watched.exporter.heard() == [SourceHeard(source=SourceName.ENDPOINTS, heard_at=3.0)]


def test_a_part_that_was_listed_anew_is_reported_with_its_reason() -> None:
    watched = Watched(EndpointWatcher)
    assert watched.deliver(Heard(3.0, None, "expired")) == []
    told = SourceHeard(source=SourceName.ENDPOINTS, heard_at=3.0, relist_reason="expired")
    assert watched.exporter.heard() == [told]


# --- the controller's -------------------------------------------------------------------------------------------------

QUERY, OTHER = (PodQuery(namespace=each, selector=LabelSelector()) for each in ("a", "b"))


def ended(revision: int | None) -> ListingEnded:
    return ListingEnded(listing=1, as_of=2.0, revision=revision)


def wish(*queries: PodQuery, revision: int = 1) -> WatchPods:
    return WatchPods(queries=frozenset(queries), revision=revision)


def test_pods_that_are_wanted_are_asked_for_and_confirmed_once_the_source_covers_them() -> None:
    watched = Watched(EndpointWatcher)
    watched.deliver(ListingStarted(listing=1, reason="start"), ended(0))
    assert _wanted(watched.tell(wish(QUERY, revision=7))) == []
    assert watched.source.wanted == {QUERY}
    upserted = Upserted(object=POD, listing=1, received_at=2.5)
    heard = watched.deliver(upserted, ended(7))
    assert isinstance(heard[0], PodUpserted)
    assert _wanted(heard) == [7]


def test_pods_wanted_before_the_first_listing_are_confirmed_with_what_covers_them() -> None:
    watched = Watched(EndpointWatcher)
    watched.tell(wish(QUERY))
    assert _wanted(watched.deliver(ListingStarted(listing=1, reason="start"), ended(0))) == []
    assert _wanted(watched.deliver(ended(1))) == [1]


def test_a_wish_that_came_back_is_confirmed_by_an_answer_to_itself_alone() -> None:
    """What an older answer covered may have been let go meanwhile."""
    watched = Watched(EndpointWatcher)
    watched.deliver(ListingStarted(listing=1, reason="start"), ended(0))
    for revision, queries in enumerate(((QUERY,), (), (QUERY,)), start=1):
        watched.tell(wish(*queries, revision=revision))
    assert [_wanted(watched.deliver(ended(revision))) for revision in (1, 2, 3)] == [[], [], [3]]


def test_a_source_that_delivers_whatever_there_is_confirms_at_once() -> None:
    watched = Watched(EndpointWatcher)
    watched.deliver(ListingStarted(listing=1, reason="start"), ended(None))
    assert _wanted(watched.tell(wish(QUERY, revision=2))) == [2]


def test_an_agents_node_is_synced_without_any_wish() -> None:
    assert _wanted(Watched(EndpointWatcher).deliver(*listed(POD))) == [0]


def test_a_status_goes_to_who_writes_it_and_the_policy_goes_on_without_it() -> None:
    writer = Peer("StatusWriter")
    watched = Watched(PolicyWatcher)
    status = PolicyStatus(reason="Accepted", version=4)
    told = replace(POLICY, uid="u-1", status=status)
    heard = watched.deliver(Upserted(object=told, listing=1, received_at=2.5))
    assert writer.heard() == [PolicyStatusSeen(key=POLICY.key, uid="u-1", status=status)]
    assert heard == [PolicyUpserted(policy=replace(POLICY, uid="u-1"), listing=0, received_at=2.5)]


def test_a_policy_that_is_gone_has_no_status_any_longer() -> None:
    writer = Peer("StatusWriter")
    removed = Removed(PolicyKind.LOCAL_REDIRECT, POLICY.key, 2.5)
    heard = Watched(PolicyWatcher).deliver(removed)
    assert writer.heard() == [PolicyStatusGone(key=POLICY.key)]
    assert heard == [PolicyRemoved(key=POLICY.key, received_at=2.5)]


def test_a_policy_whose_status_was_not_read_has_none_to_tell() -> None:
    writer = Peer("StatusWriter")
    Watched(PolicyWatcher).deliver(Upserted(object=POLICY, listing=1, received_at=2.5))
    assert writer.heard() == []
