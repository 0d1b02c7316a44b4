"""Which file's object counts, and what changes when files change."""

from __future__ import annotations

import pytest

from k8s.objects.identity import Identity
from k8s.objects.model import KubeObject, Node
from k8s.sources.store import ManifestStore


def contents(*labels: str, name: str = "n") -> dict[Identity, KubeObject]:
    return {("Node", name): Node(name=name, labels=frozenset((label, "") for label in labels))}


A, B = contents("a"), contents("b")
NODE: Identity = ("Node", "n")


def test_an_unchanged_object_is_no_change() -> None:
    store = ManifestStore()
    assert store.apply({"a": A}).upserted == tuple(A.values())
    delta = store.apply({"a": dict(A)})
    assert (delta.upserted, delta.removed) == ((), ())


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_the_first_file_by_name_counts_whichever_came_first(order: tuple[str, str]) -> None:
    store = ManifestStore()
    files = {"a": A, "b": B}
    store.apply({order[0]: files[order[0]]})
    (duplicate,) = store.apply({order[1]: files[order[1]]}).duplicates
    assert (duplicate.counts, duplicate.ignored) == ("a", "b")
    assert store.objects() == list(A.values())


def test_the_other_file_takes_over_when_the_first_goes() -> None:
    store = ManifestStore()
    store.apply({"a": A, "b": B})
    delta = store.apply({"a": None})
    assert (delta.upserted, delta.removed) == (tuple(B.values()), ())
    assert store.apply({"b": None}).removed == (NODE,)


def test_a_duplicate_is_reported_once() -> None:
    store = ManifestStore()
    assert len(store.apply({"a": A, "b": B}).duplicates) == 1
    assert store.apply({"b": contents("c")}).duplicates == ()
    store.apply({"b": {}})
    assert len(store.apply({"b": B}).duplicates) == 1


def test_a_renamed_file_changes_nothing() -> None:
    store = ManifestStore()
    store.apply({"a": A})
    delta = store.apply({"a": None, "b": A})
    assert (delta.upserted, delta.removed) == ((), ())


def test_a_document_removed_from_a_file_removes_its_object() -> None:
    store = ManifestStore()
    store.apply({"a": {**A, **contents("x", name="m")}})
    assert store.apply({"a": A}).removed == (("Node", "m"),)
