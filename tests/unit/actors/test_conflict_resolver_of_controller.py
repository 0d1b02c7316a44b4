"""ConflictResolver of the controller by itself: verdicts, and subscriptions to Pods."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.controller.cluster_decision import ClusterDecision
from actors.controller.cluster_subscriptions import ClusterSubscriptions
from actors.messages.facts import (
    NodeUpserted,
    PodRemoved,
    PolicyRemoved,
    SourceName,
    SourceSynced,
)
from actors.messages.resync import ResyncDesiredState
from actors.messages.subscriptions import WatchPods
from actors.messages.verdicts import ApplyVerdicts
from config.settings import RedirectSettings
from k8s.objects.model import LabelSelector, Node, Pod, PodQuery, Policy, Service
from tests.unit.actors.resolving import AT, Resolving, fact
from tests.unit.objects import KEY, SELECTOR, SERVICE, address_spec, pod, policy, port, service_spec
from tests.unit.peers import Peer

DNS = policy(service_spec(port(53), backend=(port(5353),)))
VIP = policy(address_spec())


class ResolvingCluster(Resolving):
    """The resolver of a controller, which sends verdicts to StatusWriter and subscribes to Pods."""

    def __init__(self) -> None:
        super().__init__(ClusterDecision(RedirectSettings()), ClusterSubscriptions(RedirectSettings()))
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
def cluster() -> ResolvingCluster:
    return ResolvingCluster()


NODES = (Node(name="a"), Node(name="b"))
ON_A, ON_B = (replace(pod(f"cache-{name}"), node=name) for name in "ab")
IN_DNS, ANYWHERE = (PodQuery(namespace=each, selector=SELECTOR) for each in ("kube-system", ""))


def test_a_controller_subscribes_to_the_pods_that_policies_select_once_the_policies_are_known(
    cluster: ResolvingCluster,
) -> None:
    cluster.tell(fact(DNS), fact(replace(VIP, key=replace(KEY, name="vip"))))
    assert cluster.pod_subscriptions() == []
    cluster.sync(SourceName.POLICIES)
    (subscription,) = cluster.pod_subscriptions()
    assert subscription.queries == {IN_DNS, ANYWHERE}


@pytest.mark.parametrize("covers", [("services", "pods"), ("pods", "services")], ids=" ".join)
def test_nothing_is_sent_before_every_subscription_is_covered(
    cluster: ResolvingCluster, covers: tuple[str, str]
) -> None:
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


def test_a_listing_of_pods_that_answers_an_older_subscription_does_not_count(cluster: ResolvingCluster) -> None:
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


def test_no_pod_is_removed_by_a_restarted_watcher_that_does_not_know_the_subscription(
    cluster: ResolvingCluster,
) -> None:
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


def test_a_new_policy_waits_for_its_service_and_its_pods_without_delaying_others(cluster: ResolvingCluster) -> None:
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


def test_a_policy_that_selects_other_pods_keeps_its_verdict_until_they_are_known(cluster: ResolvingCluster) -> None:
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


def test_pods_that_no_policy_selects_are_forgotten_when_their_watch_ends(cluster: ResolvingCluster) -> None:
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


def test_pods_that_were_unsubscribed_meanwhile_are_waited_for_again(cluster: ResolvingCluster) -> None:
    cluster.begin(VIP, *NODES, ON_A)
    cluster.tell(PolicyRemoved(key=KEY, received_at=AT))
    cluster.verdicts()
    cluster.tell(fact(VIP))
    assert cluster.verdicts() == []
    cluster.cover_pods()
    assert cluster.counts() == [("p", 1, 2)]


def test_pods_and_nodes_that_a_new_listing_does_not_have_are_removed(cluster: ResolvingCluster) -> None:
    cluster.begin(VIP, *NODES, ON_A, ON_B)
    cluster.tell(fact(NODES[0], 2), fact(ON_B, 2))
    cluster.cover_pods(listing=2)
    assert cluster.counts() == [("p", 0, 1)]


def test_a_restarted_writer_gets_all_verdicts(cluster: ResolvingCluster) -> None:
    cluster.begin(VIP, *NODES, ON_A)
    cluster.tell(ResyncDesiredState())
    (message,) = cluster.verdicts()
    assert message.complete and [each.key for each in message.verdicts] == [KEY]


def test_the_verdict_on_a_loser_names_the_winner_and_the_loser_takes_over_when_it_is_gone(
    cluster: ResolvingCluster,
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
