"""What the watchers are asked for, and what their sources have confirmed."""

from __future__ import annotations

import pytest

from actors.messages.facts import SourceName, SourceSynced
from actors.messages.subscriptions import WatchPods, WatchServices
from actors.resolving.subscriptions import Answer, Subscription, Subscriptions
from config.domain.ids import NamespacedName
from k8s.objects.model import LabelSelector, PodQuery

DNS, WEB = NamespacedName("kube-system", "kube-dns"), NamespacedName("default", "web")
CACHE = PodQuery(namespace="kube-system", selector=LabelSelector(match_labels=(("app", "cache"),)))


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
    assert subscription.answer(subscription.revision) == Answer.COVERS
    assert subscription.confirmed == {DNS, WEB}


def test_what_is_added_is_confirmed_only_by_an_answer_to_the_new_request() -> None:
    subscription = services(DNS)
    first = subscription.revision
    subscription.answer(first)
    subscription.change(frozenset({DNS, WEB}))
    assert subscription.answer(first) == Answer.UNKNOWN
    assert subscription.confirmed == {DNS}


def test_what_was_no_longer_requested_is_not_confirmed_when_it_is_requested_again() -> None:
    subscription = services(DNS, WEB)
    subscription.answer(subscription.revision)
    subscription.change(frozenset({DNS}))
    subscription.change(frozenset({DNS, WEB}))
    assert subscription.confirmed == {DNS}


def test_a_listing_for_a_resolver_that_ran_before_is_stale() -> None:
    subscription = services(DNS)
    assert subscription.answer(subscription.revision + 1) == Answer.STALE
    assert not subscription.confirmed


@pytest.mark.parametrize("pods", [False, True], ids=["agent", "controller"])
def test_only_a_resolver_that_asks_for_pods_sends_requests_to_the_endpoint_watcher(*, pods: bool) -> None:
    subscriptions = Subscriptions(pods=pods)
    changed = list(subscriptions.change(frozenset({DNS}), frozenset({CACHE})))
    assert changed == ([SourceName.SERVICES, SourceName.ENDPOINTS] if pods else [SourceName.SERVICES])
    peer, message = subscriptions.request(SourceName.SERVICES) or ("", None)
    assert peer == "ServiceWatcher"
    assert isinstance(message, WatchServices)
    assert message.names == {DNS}
    request = subscriptions.request(SourceName.ENDPOINTS)
    assert (request is not None) == pods
    assert request is None or isinstance(request[1], WatchPods)


def test_nothing_is_requested_before_the_policies_are_known() -> None:
    subscriptions = Subscriptions(pods=True)
    assert [subscriptions.request(source) for source in SourceName] == [None] * len(SourceName)
    assert [source for source in SourceName if subscriptions.is_requested(source)] == [SourceName.POLICIES]


def test_a_policy_is_covered_once_both_its_service_and_its_pods_are_confirmed() -> None:
    subscriptions = Subscriptions(pods=True)
    list(subscriptions.change(frozenset({DNS}), frozenset({CACHE})))
    for source in (SourceName.SERVICES, SourceName.ENDPOINTS):
        assert not subscriptions.confirms(DNS, frozenset({CACHE}))
        _, message = subscriptions.request(source) or ("", None)
        assert isinstance(message, (WatchServices, WatchPods))
        subscriptions.answer(SourceSynced(source=source, listing=1, revision=message.revision))
    assert subscriptions.confirms(DNS, frozenset({CACHE}))
    assert not subscriptions.confirms(WEB, frozenset())
