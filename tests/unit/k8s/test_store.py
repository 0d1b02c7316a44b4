"""Which file's object counts, and what changes when files change."""

from __future__ import annotations

from typing import TypeAlias

import pytest

from k8s.objects.identity import Identity
from k8s.objects.model import KubeObject, Node
from k8s.sources.object_change import ObjectChange
from k8s.sources.store import Duplicate, ManifestStore


def contents(*labels: str, name: str = "n") -> dict[Identity, KubeObject]:
    return {("Node", name): Node(name=name, labels=frozenset((label, "") for label in labels))}


A, B = contents("a"), contents("b")
NODE: Identity = ("Node", "n")
Files: TypeAlias = dict[str, dict[Identity, KubeObject] | None]


def change(store: ManifestStore, files: Files) -> ObjectChange:
    return store.apply(files)[0]


def duplicates(store: ManifestStore, files: Files) -> tuple[Duplicate, ...]:
    return store.apply(files)[1]


def test_an_unchanged_object_is_no_change() -> None:
    store = ManifestStore()
    assert change(store, {"a": A}).upserted == tuple(A.values())
    assert change(store, {"a": dict(A)}) == ObjectChange()


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_the_first_file_by_name_counts_whichever_came_first(order: tuple[str, str]) -> None:
    store = ManifestStore()
    files = {"a": A, "b": B}
    store.apply({order[0]: files[order[0]]})
    _, (duplicate,) = store.apply({order[1]: files[order[1]]})
    assert (duplicate.counts, duplicate.ignored) == ("a", "b")
    assert store.objects() == list(A.values())


def test_the_other_file_takes_over_when_the_first_goes() -> None:
    store = ManifestStore()
    store.apply({"a": A, "b": B})
    assert change(store, {"a": None}) == ObjectChange(upserted=tuple(B.values()))
    assert change(store, {"b": None}).removed == (NODE,)


def test_a_duplicate_is_reported_once() -> None:
    store = ManifestStore()
    assert len(duplicates(store, {"a": A, "b": B})) == 1
    assert duplicates(store, {"b": contents("c")}) == ()
    store.apply({"b": {}})
    assert len(duplicates(store, {"b": B})) == 1


def test_a_renamed_file_changes_nothing() -> None:
    store = ManifestStore()
    store.apply({"a": A})
    assert change(store, {"a": None, "b": A}) == ObjectChange()


def test_a_document_removed_from_a_file_removes_its_object() -> None:
    store = ManifestStore()
    store.apply({"a": {**A, **contents("x", name="m")}})
    assert change(store, {"a": A}).removed == (("Node", "m"),)
