"""Manifest files: documents, lists, and the objects that they hold."""

from __future__ import annotations

import json

import pytest

from config.settings import RedirectSettings
from k8s.objects.identity import identity_text
from k8s.objects.manifests import Manifest, read_manifest
from tests.unit.objects import ALL_KINDS

SERVICE = "{apiVersion: v1, kind: Service, metadata: {name: %s}, spec: {}}"
POD = "{apiVersion: v1, kind: Pod, metadata: {name: %s}, spec: {nodeName: %s}}"


def read(text: str | bytes, *, kinds: frozenset[str] = ALL_KINDS, is_json: bool = False) -> Manifest:
    data = text.encode() if isinstance(text, str) else text
    return read_manifest(data, is_json=is_json, kinds=kinds, node_name="here", redirect=RedirectSettings())


def names(manifest: Manifest) -> list[str]:
    return [identity_text(name) for name in manifest.objects]


def test_empty_documents_among_others_are_left_out() -> None:
    manifest = read("---\n---\n" + SERVICE % "a" + "\n---\n# nothing\n---\n" + SERVICE % "b" + "\n...\n")
    assert names(manifest) == ["Service/default/a", "Service/default/b"]
    assert manifest.document_faults == ()


@pytest.mark.parametrize(
    "text",
    [
        "apiVersion: v1\nkind: List\nitems: [" + SERVICE % "a" + "," + SERVICE % "b" + "]",
        "apiVersion: v1\nkind: ServiceList\nitems: [{metadata: {name: a}, spec: {}}, {metadata: {name: b}, spec: {}}]",
    ],
)
def test_lists_are_taken_apart(text: str) -> None:
    assert names(read(text)) == ["Service/default/a", "Service/default/b"]


def test_only_pods_and_the_node_of_this_node_count() -> None:
    node = "\n---\n{apiVersion: v1, kind: Node, metadata: {name: %s}}"
    text = POD % ("a", "here") + "\n---\n" + POD % ("b", "there") + node % "here" + node % "there"
    assert names(read(text)) == ["Pod/default/a", "Node/here"]


def test_objects_of_kinds_that_were_not_asked_for_are_left_alone_even_if_faulty() -> None:
    manifest = read(SERVICE % "BAD", kinds=frozenset({"Pod"}))
    assert manifest == Manifest(objects={})


def test_a_service_of_another_group_is_not_ours() -> None:
    assert names(read(SERVICE.replace("v1", "serving.knative.dev/v1") % "a")) == []


def test_a_faulty_object_is_named_and_the_others_count() -> None:
    manifest = read(SERVICE % "BAD" + "\n---\n" + SERVICE % "good")
    assert names(manifest) == ["Service/default/good"]
    (fault,) = manifest.object_faults
    assert fault.startswith("Service/BAD: metadata.name: 'BAD' is wrong")


def test_an_invalid_policy_is_an_object_and_its_faults_are_reported() -> None:
    manifest = read(
        "{apiVersion: balancing.elf.io/v1beta1, kind: LocalRedirectPolicy, metadata: {name: p}, spec: {x: 1}}"
    )
    assert names(manifest) == ["LocalRedirectPolicy/p"]
    assert manifest.object_faults == (
        "LocalRedirectPolicy/p: spec.frontend: is missing; it is required",
        "LocalRedirectPolicy/p: spec.backend: is missing; it is required",
        (
            "LocalRedirectPolicy/p: spec.x: is unknown; it must be one of enabled, frontend, backend, config; "
            "it has no effect"
        ),
    )


@pytest.mark.parametrize("name", ["", "name: 3", "name: []"])
def test_an_object_without_a_name_is_a_fault_and_no_object(name: str) -> None:
    manifest = read("kind: LocalRedirectPolicy\nmetadata: {%s}" % name)  # noqa: UP031 (braces)
    assert names(manifest) == []
    assert manifest.object_faults[0].startswith("LocalRedirectPolicy/(no name): metadata.name: ")


def test_the_first_of_two_documents_of_one_object_counts() -> None:
    manifest = read(SERVICE % "a" + "\n---\n" + SERVICE % "a")
    assert names(manifest) == ["Service/default/a"]
    assert manifest.object_faults == ("Service/default/a: appears twice in this file; the first one counts",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("just text", "document 1: 'just text' is not an object"),
        ("[1]", "document 1: a list is not an object"),
        ("{}", "document 1: kind: is missing"),
        ("kind: 3", "document 1: kind: 3 is wrong"),
        ("kind: List", "document 1: items: null is wrong; it must be a list"),
        ("{kind: List, items: [3]}", "document 1, items[0]: 3 is not an object"),
        (
            "{kind: List, items: [{kind: List, items: []}]}",
            "document 1, items[0]: is a list within a list; it must be an object",
        ),
    ],
)
def test_a_document_that_is_no_object_is_a_fault(text: str, says: str) -> None:
    (fault,) = read(text).document_faults
    assert fault.startswith(says)


def test_json_is_read() -> None:
    raw = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {}}
    assert names(read(json.dumps(raw, indent="\t"), is_json=True)) == ["Service/default/a"]
