"""The objects that several list-watches hold together."""

from __future__ import annotations

from config.domain.ids import NamespacedName
from k8s.api.resource import Resource
from k8s.objects.identity import identity
from k8s.objects.model import Pod
from k8s.sources.cache import ObjectCache
from k8s.sources.object_change import ObjectChange

ONE = Resource(kind="Pod", path="/api/v1/pods", label_selector="a=1")
OTHER = Resource(kind="Pod", path="/api/v1/pods", label_selector="b=2")


def pod(name: str, *, ready: bool = True) -> Pod:
    return Pod(key=NamespacedName("default", name), ready=ready)


def names(change: ObjectChange) -> tuple[list[str], list[str]]:
    """Upserted and removed."""
    upserted = [each.key.name for each in change.upserted if isinstance(each, Pod)]
    return upserted, [key.name for _, key in change.removed if isinstance(key, NamespacedName)]


def test_a_first_listing_is_all_new() -> None:
    assert names(ObjectCache().list(ONE, [pod("a"), pod("b")])) == (["a", "b"], [])


def test_a_new_listing_returns_only_what_it_changes() -> None:
    cache = ObjectCache()
    cache.list(ONE, [pod("same"), pod("changed"), pod("gone")])
    assert names(cache.list(ONE, [pod("same"), pod("changed", ready=False)])) == (["changed"], ["gone"])


def test_an_event_that_changes_nothing_that_we_use_is_no_change() -> None:
    cache = ObjectCache()
    cache.list(ONE, [pod("a")])
    assert names(cache.change(ONE, pod("a"))) == ([], [])
    assert names(cache.change(ONE, pod("a", ready=False))) == (["a"], [])


def test_a_deletion_is_returned_once() -> None:
    cache = ObjectCache()
    cache.list(ONE, [pod("a")])
    assert names(cache.delete(ONE, identity(pod("a")))) == ([], ["a"])
    assert names(cache.delete(ONE, identity(pod("a")))) == ([], [])


def test_an_object_of_two_list_watches_exists_until_both_have_dropped_it() -> None:
    cache = ObjectCache()
    cache.list(ONE, [pod("a")])
    assert names(cache.list(OTHER, [pod("a"), pod("b")])) == (["b"], [])
    assert names(cache.delete(ONE, identity(pod("a")))) == ([], [])
    assert names(cache.forget(OTHER)) == ([], ["a", "b"])


def test_an_empty_listing_is_a_listing() -> None:
    cache = ObjectCache()
    cache.list(ONE, [])
    assert cache.listed() == {ONE}
