"""The content of a manifest file as objects of the wanted kinds, with every fault. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from config.input.faults import Report
from config.input.fields import Fields
from config.settings import RedirectSettings
from k8s.objects.documents import Document, read_documents
from k8s.objects.identity import POLICY_KINDS, Identity, identity, identity_text
from k8s.objects.metadata import ObjectError, refuse_faulty
from k8s.objects.model import KubeObject, Policy
from k8s.objects.node import parse_node
from k8s.objects.object_warnings import warning_of_deletion, warnings_about
from k8s.objects.pod import node_of_pod, parse_pod
from k8s.objects.policy import parse_policy
from k8s.objects.raw import raw_metadata
from k8s.objects.service import read_service


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a file holds of the wanted kinds."""

    objects: Mapping[Identity, KubeObject]
    document_faults: tuple[str, ...] = ()
    """Faults of documents that are not objects."""
    object_faults: tuple[str, ...] = ()
    """Faults of objects of the wanted kinds; those of an invalid policy, too."""


def may_hold(data: bytes, kinds: frozenset[str]) -> bool:
    """Whether a file may hold objects of these kinds. False is certain. This takes far less time than parsing."""
    if not kinds:
        return False
    # If there is a backslash, a kind may be written with escapes, in JSON and in YAML's double quotes. The search is
    # for whole words, since the file of a Pod has keys such as enableServiceLinks. It finds PodList as well, since the
    # items of a PodList may have no kind of their own.
    words = b"|".join(sorted(kind.encode() for kind in kinds))
    return b"\\" in data or re.search(rb"\b(?:%b)(?:List)?\b" % words, data) is not None


def read_manifest(
    data: bytes, *, is_json: bool, kinds: frozenset[str], node_name: str, redirect: RedirectSettings
) -> Manifest:
    """Of Pods and Nodes, only those of `node_name`. Raises FileFault, nothing else."""
    documents, report = read_documents(data, is_json=is_json)
    objects: dict[Identity, KubeObject] = {}
    faults: list[str] = []
    for document in documents:
        if document.kind not in kinds or not _is_ours(document):
            continue
        try:
            found = _parse(document, node_name, redirect)
        except ObjectError as error:
            faults.append(warning_of_deletion(error))
            continue
        if found is None:
            continue
        name = identity(found)
        if name in objects:
            faults.append(f"{identity_text(name)}: appears twice in this file; the first one counts")
            continue
        objects[name] = found
        if isinstance(found, Policy):
            faults.extend(f"{identity_text(name)}: {fault}" for fault in found.faults)
        faults.extend(warnings_about(found))
    return Manifest(objects=objects, document_faults=report.all_faults(), object_faults=tuple(faults))


def _is_ours(document: Document) -> bool:
    """Whether the document is of one of our kinds: other API groups have a Service, too. A policy of a wrong group is
    most likely a mistake, so it counts as ours, and is reported as faulty."""
    return document.kind in POLICY_KINDS or document.raw.get("apiVersion") == "v1"


def _parse(document: Document, node_name: str, redirect: RedirectSettings) -> KubeObject | None:
    """None for objects of other nodes. Raises ObjectError."""
    raw = document.raw
    # Without a name, not even an invalid object can be kept.
    report = Report()
    name = Fields(raw_metadata(raw), "metadata", report).text("name", bool, "a DNS name", needed=True)
    refuse_faulty(document.kind, raw, report)
    match document.kind:
        case "Service":
            return read_service(raw)
        case "Pod":
            return parse_pod(raw) if node_of_pod(raw) == node_name else None
        case "Node":
            return parse_node(raw) if name == node_name else None
        case _:
            return parse_policy(raw, redirect)
