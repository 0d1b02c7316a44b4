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
from actors.messages.resync import ResyncSource
from actors.messages.subscriptions import WatchPods, WatchServices
from actors.messages.upkeep import LeaseProbe
from actors.messages.verdicts import PolicyStatusGone, PolicyStatusSeen
from actors.watching.endpoint_watcher import EndpointWatcher
from actors.watching.policy_watcher import PolicyWatcher
from actors.watching.service_watcher import ServiceWatcher
from actors.watching.watcher import Watcher
from config.domain.ids import NamespacedName, ObjectKey, PolicyKey, PolicyKind
from k8s.api.trouble import Trouble, TroubleKind
from k8s.objects.model import KubeObject, LabelSelector, Node, Pod, PodQuery, Policy, PolicyStatus, Service
from k8s.sources.source import Deliver, Heard, ListingEnded, ListingStarted, Removed, SourceEvent, Topic, Upserted
from tests.unit.peers import WAIT_SECONDS, Peer, fence, wait_until_dead


class FakeSource:
    """Delivers what the test says. `end` makes `run` return although nobody stopped it."""

    def __init__(self, deliver: Deliver) -> None:
        self.deliver = deliver
        self.end = threading.Event()
        self.relisted: list[float] = []
        self.topics: frozenset[Topic] = frozenset()
        self.revision = 0

    def run(self) -> None:
        self.end.wait(WAIT_SECONDS)

    def stop(self) -> None:
        self.end.set()

    def relist(self, since: float = 0.0) -> None:
        self.relisted.append(since)

    def subscribe(self, topics: frozenset[Topic], revision: int) -> None:
        self.topics, self.revision = topics, revision


class Watched:
    """A watcher over a fake source, and its peers."""

    def __init__(self, watcher: type[Watcher], **options: object) -> None:
        self.resolver, self.exporter, self.supervisor = (
            Peer("ConflictResolver"),
            Peer("MetricsExporter"),
            Peer("Supervisor"),
        )
        self._made: list[FakeSource] = []
        self.ref: pykka.ActorRef[Any] = watcher.start(source=self._make, **options)

    def _make(self, deliver: Deliver) -> FakeSource:
        self._made.append(FakeSource(deliver))
        return self._made[-1]

    @property
    def source(self) -> FakeSource:
        return self._made[-1]

    def deliver(self, *events: SourceEvent) -> list[Message]:
        """Returns what ConflictResolver hears when the source delivers these events."""
        for event in events:
            self.source.deliver(event)
        fence(self.ref)
        return self.resolver.heard()

    def tell(self, message: Message) -> list[Message]:
        self.ref.tell(message)
        fence(self.ref)
        return self.resolver.heard()


def listed(*objects: KubeObject, reason: str = "start") -> list[SourceEvent]:
    upserts = [Upserted(object=each, received_at=2.5) for each in objects]
    return [ListingStarted(reason=reason), *upserts, ListingEnded(as_of=2.0)]


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
def test_a_listing_becomes_facts_and_a_source_synced_with_the_same_number(
    watcher: type[Watcher], object_: KubeObject, fact: Any
) -> None:
    heard = Watched(watcher).deliver(*listed(object_))
    synced = heard[-1]
    assert isinstance(synced, SourceSynced)
    ended = SourceSynced(source=watcher.SOURCE, listing=synced.listing, as_of=2.0)
    assert heard == [fact(synced.listing), ended]


@pytest.mark.parametrize(
    ("watcher", "key", "fact"),
    [
        (PolicyWatcher, POLICY.key, PolicyRemoved(key=POLICY.key, received_at=3.0)),
        (EndpointWatcher, POD.key, PodRemoved(key=POD.key, received_at=3.0)),
        (EndpointWatcher, "node-a", NodeRemoved(name="node-a", received_at=3.0)),
    ],
    ids=["policy", "pod", "node"],
)
def test_a_removal_becomes_a_fact(watcher: type[Watcher], key: ObjectKey, fact: Message) -> None:
    assert Watched(watcher).deliver(Removed(key=key, received_at=3.0)) == [fact]


def test_an_endpoint_watcher_sends_the_recorder_facts_about_pods_if_there_is_one() -> None:
    watched, recorder = Watched(EndpointWatcher, has_recorder=True), Peer("DecisionRecorder")
    watched.deliver(*listed(POD, NODE), Removed(key=POD.key, received_at=3.0))
    upserted, synced, removed = recorder.heard()
    assert isinstance(synced, SourceSynced)
    assert upserted == PodUpserted(pod=POD, listing=synced.listing, received_at=2.5)
    assert removed == PodRemoved(key=POD.key, received_at=3.0)


def test_listing_numbers_grow_even_across_a_restart_of_the_watcher() -> None:
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
    probe = LeaseProbe(sent_ns=99)
    assert Watched(watcher).tell(probe) == [replace(probe, passed_by=watcher.SOURCE)]


def test_the_contact_of_the_source_and_the_reason_for_a_listing_are_reported() -> None:
    watched = Watched(EndpointWatcher)
    reporter = Peer("StatusReporter")
    trouble = Trouble(TroubleKind.REFUSED, 4.0, "the right to list pods is missing")
    watched.deliver(*listed(POD, reason="overflow"), Heard(3.0), Heard(3.0, trouble))
    reports = [
        SourceHeard(source=SourceName.ENDPOINTS, heard_at=None, relist_reason="overflow"),
        SourceHeard(source=SourceName.ENDPOINTS, heard_at=3.0),
        SourceHeard(source=SourceName.ENDPOINTS, heard_at=3.0, trouble=trouble),
    ]
    assert watched.exporter.heard() == reports
    assert [each for each in reporter.heard() if isinstance(each, SourceHeard)] == reports


def test_the_contact_of_the_source_is_reported_each_second_for_reporters_that_were_restarted() -> None:
    watched = Watched(EndpointWatcher)
    watched.deliver(Heard(3.0))
    watched.exporter.heard()
    watched.tell(LeaseProbe(sent_ns=1))
    assert watched.exporter.heard() == [SourceHeard(source=SourceName.ENDPOINTS, heard_at=3.0)]


def test_the_reason_is_reported_when_a_part_of_the_source_was_listed_again() -> None:
    watched = Watched(EndpointWatcher)
    assert watched.deliver(Heard(3.0, None, "expired")) == []
    expected = SourceHeard(source=SourceName.ENDPOINTS, heard_at=3.0, relist_reason="expired")
    assert watched.exporter.heard() == [expected]


def test_a_source_that_ends_by_itself_fails_the_watcher_so_that_it_is_restarted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watched = Watched(PolicyWatcher)
    watched.source.end.set()
    assert watched.supervisor.next() == ActorFailed(name="PolicyWatcher")
    assert "PolicyWatcher failed (thread): RuntimeError: thread PolicyWatcher-source ended by itself" in caplog.messages
    wait_until_dead(watched.ref)


# --- ServiceWatcher reports subscribed Services only ------------------------------------------------------------------


def _names(heard: list[Message]) -> list[NamespacedName]:
    return [each.service.key for each in heard if isinstance(each, ServiceUpserted)]


def _revisions(heard: list[Message]) -> list[int]:
    return [each.revision for each in heard if isinstance(each, SourceSynced)]


def test_a_service_that_no_policy_names_is_not_reported() -> None:
    heard = Watched(ServiceWatcher).deliver(*listed(SERVICE))
    assert (_names(heard), _revisions(heard)) == ([], [0])


def test_a_subscription_after_the_listing_is_answered_and_confirmed_at_once() -> None:
    watched = Watched(ServiceWatcher)
    watched.deliver(*listed(SERVICE, Service(key=WEB)))
    heard = watched.tell(WatchServices(names=frozenset({DNS}), revision=1))
    assert (_names(heard), _revisions(heard)) == ([DNS], [1])


def test_a_subscription_before_the_listing_is_answered_with_the_listing() -> None:
    watched = Watched(ServiceWatcher)
    assert watched.tell(WatchServices(names=frozenset({DNS}), revision=3)) == []
    heard = watched.deliver(*listed(SERVICE, Service(key=WEB)))
    assert (_names(heard), _revisions(heard)) == ([DNS], [3])


def test_a_subscription_is_passed_on_to_the_source_and_confirmed_once_the_source_covers_it() -> None:
    watched = Watched(ServiceWatcher)
    watched.deliver(ListingStarted("start"), ListingEnded(2.0, 0))
    assert watched.tell(WatchServices(names=frozenset({DNS}), revision=5)) == []
    assert (watched.source.topics, watched.source.revision) == (frozenset({DNS}), 5)
    heard = watched.deliver(Upserted(SERVICE, 2.5), ListingEnded(2.0, 5))
    assert (_names(heard), _revisions(heard)) == ([DNS], [5])


def test_a_listing_that_covers_an_older_subscription_confirms_nothing() -> None:
    watched = Watched(ServiceWatcher)
    watched.tell(WatchServices(names=frozenset({DNS, WEB}), revision=5))
    assert watched.deliver(ListingStarted("start"), ListingEnded(2.0, 4)) == []


def test_a_restarted_resolver_that_subscribes_again_gets_everything_again() -> None:
    watched = Watched(ServiceWatcher)
    watched.deliver(*listed(SERVICE))
    subscription = WatchServices(names=frozenset({DNS}), revision=1)
    assert _names(watched.tell(subscription)) == _names(watched.tell(subscription)) == [DNS]


@pytest.mark.parametrize("subscribed", [True, False])
def test_the_removal_of_a_service_is_reported_if_there_is_a_subscription_to_it(*, subscribed: bool) -> None:
    watched = Watched(ServiceWatcher)
    watched.deliver(*listed(SERVICE))
    watched.tell(WatchServices(names=frozenset({DNS} if subscribed else ()), revision=1))
    heard = watched.deliver(Removed(key=DNS, received_at=3.0))
    assert heard == ([ServiceRemoved(key=DNS, received_at=3.0)] if subscribed else [])


def test_a_service_that_the_newest_listing_does_not_have_is_not_reported_to_later_subscriptions() -> None:
    watched = Watched(ServiceWatcher)
    watched.deliver(*listed(SERVICE))
    watched.deliver(*listed(reason="requested"))
    heard = watched.tell(WatchServices(names=frozenset({DNS}), revision=1))
    assert (_names(heard), _revisions(heard)) == ([], [1])


# --- in the controller ------------------------------------------------------------------------------------------------

QUERY, OTHER = (PodQuery(namespace=each, selector=LabelSelector()) for each in ("a", "b"))


def ended(revision: int | None) -> ListingEnded:
    return ListingEnded(as_of=2.0, revision=revision)


def watch_pods(*queries: PodQuery, revision: int = 1) -> WatchPods:
    return WatchPods(queries=frozenset(queries), revision=revision)


def test_subscribed_pods_are_requested_from_the_source_and_confirmed_once_it_covers_them() -> None:
    watched = Watched(EndpointWatcher)
    watched.deliver(ListingStarted(reason="start"), ended(0))
    assert _revisions(watched.tell(watch_pods(QUERY, revision=7))) == []
    assert watched.source.topics == {QUERY}
    upserted = Upserted(object=POD, received_at=2.5)
    heard = watched.deliver(upserted, ended(7))
    assert isinstance(heard[0], PodUpserted)
    assert _revisions(heard) == [7]


def test_pods_subscribed_before_the_first_listing_are_confirmed_by_the_listing_that_covers_them() -> None:
    watched = Watched(EndpointWatcher)
    watched.tell(watch_pods(QUERY))
    assert _revisions(watched.deliver(ListingStarted(reason="start"), ended(0))) == []
    assert _revisions(watched.deliver(ended(1))) == [1]


def test_a_subscription_that_was_made_twice_is_confirmed_by_the_answer_to_its_newest_revision_only() -> None:
    """The source may have dropped in between what it delivered for the older revision."""
    watched = Watched(EndpointWatcher)
    watched.deliver(ListingStarted(reason="start"), ended(0))
    for revision, queries in enumerate(((QUERY,), (), (QUERY,)), start=1):
        watched.tell(watch_pods(*queries, revision=revision))
    assert [_revisions(watched.deliver(ended(revision))) for revision in (1, 2, 3)] == [[], [], [3]]


def test_a_source_that_delivers_everything_confirms_at_once() -> None:
    watched = Watched(EndpointWatcher)
    watched.deliver(ListingStarted(reason="start"), ended(None))
    assert _revisions(watched.tell(watch_pods(QUERY, revision=2))) == [2]


def test_an_agent_is_synced_without_a_subscription_to_pods() -> None:
    assert _revisions(Watched(EndpointWatcher).deliver(*listed(POD))) == [0]


def test_a_policys_status_goes_to_the_status_writer_and_the_policy_to_the_resolver_without_it() -> None:
    writer = Peer("StatusWriter")
    watched = Watched(PolicyWatcher)
    status = PolicyStatus(reason="Accepted", version=4)
    seen = replace(POLICY, uid="u-1", status=status)
    heard = watched.deliver(Upserted(object=seen, received_at=2.5))
    assert writer.heard() == [PolicyStatusSeen(key=POLICY.key, uid="u-1", status=status)]
    assert heard == [PolicyUpserted(policy=replace(POLICY, uid="u-1"), listing=0, received_at=2.5)]


def test_the_status_writer_hears_of_a_removed_policy() -> None:
    writer = Peer("StatusWriter")
    removed = Removed(POLICY.key, 2.5)
    heard = Watched(PolicyWatcher).deliver(removed)
    assert writer.heard() == [PolicyStatusGone(key=POLICY.key)]
    assert heard == [PolicyRemoved(key=POLICY.key, received_at=2.5)]


def test_nothing_is_sent_about_the_status_of_a_policy_whose_status_was_not_read() -> None:
    writer = Peer("StatusWriter")
    Watched(PolicyWatcher).deliver(Upserted(object=POLICY, received_at=2.5))
    assert writer.heard() == []
