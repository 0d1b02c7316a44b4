"""The content of a manifest file, taken apart into raw objects. Pure; raises nothing but FileFault, whatever the bytes.

A file may hold several YAML documents, and `List` or typed lists (`PodList`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from config.input.faults import Report, shown
from config.input.parsing import StrictLoader, parse_json, parse_yaml
from k8s.objects.kubectl_yaml import KubectlLoader

_KIND = re.compile(r"[A-Za-z][A-Za-z0-9]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One raw object of a file, with its kind."""

    kind: str
    raw: dict[Any, Any]


def read_documents(data: bytes, *, is_json: bool, as_kubectl: bool = False) -> tuple[list[Document], Report]:
    """All objects of a file, of any kind, and the faults of documents that are not objects. Raises FileFault.

    `as_kubectl`: unquoted YAML words mean what they mean to kubectl (see `k8s.objects.kubectl_yaml`)."""
    documents: list[Document] = []
    report = Report()
    parsed = [parse_json(data)] if is_json else parse_yaml(data, KubectlLoader if as_kubectl else StrictLoader)
    for position, raw in enumerate(parsed, start=1):
        if raw is not None:  # null is an empty document, as between two "---"
            _take_apart(f"document {position}", raw, documents, report)
    return documents, report


def _take_apart(place: str, raw: object, documents: list[Document], report: Report) -> None:
    if not isinstance(raw, dict):
        report.fault(place, f"{shown(raw)} is not an object; it must be a mapping with apiVersion and kind")
        return
    kind = raw.get("kind")
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        wrong = "is missing" if kind is None else f"{shown(kind)} is wrong"
        report.fault(f"{place}: kind", f"{wrong}; it must name the kind of the object")
        return
    if not kind.endswith("List"):
        documents.append(Document(kind=kind, raw=raw))
        return
    items = raw.get("items")
    if not isinstance(items, list):
        report.fault(f"{place}: items", f"{shown(items)} is wrong; it must be a list of objects")
        return
    for index, listed in enumerate(items):
        item = listed
        inner = f"{place}, items[{index}]"
        if isinstance(item, dict) and kind != "List" and item.get("kind") is None:
            # The API server writes typed lists like this: only the list names the kind.
            item = {"apiVersion": raw.get("apiVersion"), **item, "kind": kind.removesuffix("List")}
        if isinstance(item, dict) and isinstance(item.get("kind"), str) and item["kind"].endswith("List"):
            # With aliases, lists of lists could make a small file grow without limit.
            report.fault(inner, "is a list within a list; it must be an object")
            continue
        _take_apart(inner, item, documents, report)
