"""The content of a manifest file -> objects and faults. Pure; never raises, whatever the bytes.

Several documents, `List` and typed lists (`PodList`) are taken apart. YAML as the API tools read it, but: merge keys
are bounded (they can grow a small file without limit), and a key that is there twice is a fault.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

from config.domain.ids import NamespacedName, ObjectKey, PolicyKey, PolicyKind
from config.settings import RedirectSettings
from k8s.objects.fields import ObjectError, shown
from k8s.objects.metadata import display_name, key_name
from k8s.objects.model import KubeObject, Node, Pod, Policy, Service
from k8s.objects.pod import node_of_pod, parse_node, parse_pod
from k8s.objects.policy import parse_policy
from k8s.objects.service import read_service
from k8s.objects.yaml_values import KubectlScalars

POLICY_KINDS = frozenset(str(kind) for kind in PolicyKind)
CORE_KINDS = frozenset({"Service", "Pod", "Node"})
ALL_KINDS = POLICY_KINDS | CORE_KINDS

Identity: TypeAlias = tuple[str, ObjectKey]
"""Kind and key."""

MAX_BYTES = 32 << 20
_MAX_DEPTH = 100
_MERGE = "tag:yaml.org,2002:merge"
_MAX_MERGED = 4096
_MAX_MERGE_LIST = 16
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9]{0,62}")


class FileFault(ValueError):
    """The file as a whole can't be read: one sentence, with the line where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One object of a file, with its kind."""

    kind: str
    raw: dict[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a file holds of the kinds asked for."""

    objects: Mapping[Identity, KubeObject]
    document_faults: tuple[str, ...] = ()
    """Of documents that are no object at all."""
    object_faults: tuple[str, ...] = ()
    """Of objects of the kinds asked for; an invalid policy's too."""


def identity(found: KubeObject) -> Identity:
    match found:
        case Policy():
            return str(found.key.kind), found.key
        case Node():
            return "Node", found.name
        case Pod():
            return "Pod", found.key
        case Service():
            return "Service", found.key


def raw_identity(kind: str, raw: object) -> Identity | None:
    """The identity of an object, from its metadata only, so that it is known even when the rest can't be understood.

    None when the metadata has no name."""
    metadata = raw.get("metadata") if isinstance(raw, dict) else None
    name = key_name(metadata.get("name")) if isinstance(metadata, dict) else ""
    if not isinstance(metadata, dict) or not name:
        return None
    if kind in POLICY_KINDS:
        return kind, PolicyKey(PolicyKind(kind), name)
    if kind == "Node":
        return kind, name
    namespace = metadata.get("namespace")
    return kind, NamespacedName(namespace if namespace and isinstance(namespace, str) else "default", name)


def identity_text(name: Identity) -> str:
    kind, key = name
    return f"{kind}/{key}" if isinstance(key, (str, NamespacedName)) else f"{kind}/{key.name}"


def may_hold(data: bytes, kinds: frozenset[str]) -> bool:
    """False: whatever the file holds, it is of none of these kinds. Quicker by far than reading it."""
    # A kind may be written with escapes, in JSON and in YAML's double quotes.
    return b"\\" in data or any(kind.encode() in data for kind in kinds)


def read_manifest(
    data: bytes, *, is_json: bool, kinds: frozenset[str], node_name: str, redirect: RedirectSettings
) -> Manifest:
    """Raises FileFault, nothing else."""
    documents, document_faults = read_documents(data, is_json=is_json)
    objects: dict[Identity, KubeObject] = {}
    faults: list[str] = []
    for document in documents:
        if document.kind not in kinds or not _is_ours(document):
            continue
        try:
            found = _parse(document, node_name, redirect)
        except ObjectError as error:
            faults.append(str(error))
            continue
        if found is None:
            continue
        name = identity(found)
        if name in objects:
            faults.append(f"{identity_text(name)}: is there twice in this file; the first one counts")
            continue
        objects[name] = found
        if isinstance(found, (Policy, Service)):
            faults.extend(f"{identity_text(name)}: {fault}" for fault in found.faults)
        if isinstance(found, Policy):
            faults.extend(f"{identity_text(name)}: unknown field {field}" for field in found.unknown_fields)
    return Manifest(objects=objects, document_faults=tuple(document_faults), object_faults=tuple(faults))


def read_documents(data: bytes, *, is_json: bool, as_kubectl: bool = False) -> tuple[list[Document], list[str]]:
    """All objects of a file, of any kind, and faults of documents that are none. Raises FileFault.

    `as_kubectl`: with unquoted words as kubectl reads them, which see `k8s.objects.yaml_values`."""
    documents: list[Document] = []
    faults: list[str] = []
    loader = _KubectlLoader if as_kubectl else _Loader
    for position, raw in enumerate(_load(data, None if is_json else loader), start=1):
        if raw is not None:  # an empty document, as between two "---"
            _take_apart(f"document {position}", raw, documents, faults)
    return documents, faults


def _take_apart(place: str, raw: object, documents: list[Document], faults: list[str]) -> None:
    if not isinstance(raw, dict):
        faults.append(f"{place}: {shown(raw)} is no object, must be a mapping with apiVersion and kind")
        return
    kind = raw.get("kind")
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        wrong = "is missing" if kind is None else f"{shown(kind)} is wrong"
        faults.append(f"{place}: kind: {wrong}, must name the kind of the object")
        return
    if not kind.endswith("List"):
        documents.append(Document(kind=kind, raw=raw))
        return
    items = raw.get("items")
    if not isinstance(items, list):
        faults.append(f"{place}: items: {shown(items)} is no list of objects")
        return
    for index, listed in enumerate(items):
        item = listed
        inner = f"{place}, items[{index}]"
        if isinstance(item, dict) and kind != "List" and item.get("kind") is None:
            # As the API server sends them: the list names the kind.
            item = {"apiVersion": raw.get("apiVersion"), **item, "kind": kind.removesuffix("List")}
        if isinstance(item, dict) and isinstance(item.get("kind"), str) and item["kind"].endswith("List"):
            # Refused, since aliases make lists of lists grow without bound.
            faults.append(f"{inner}: a list within a list is not supported")
            continue
        _take_apart(inner, item, documents, faults)


def _is_ours(document: Document) -> bool:
    """Other groups have a Service, too; a policy of a wrong group is most likely a mistake, and reported as a fault."""
    return document.kind in POLICY_KINDS or document.raw.get("apiVersion") == "v1"


def _parse(document: Document, node_name: str, redirect: RedirectSettings) -> KubeObject | None:
    """None for objects of other nodes. Raises ObjectError."""
    raw = document.raw
    metadata = raw.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not name:
        # Nothing to know it by, not even as an invalid one.
        wrong = "is missing" if name in (None, "") else f"{shown(name)} is wrong"
        fault = f"metadata.name: {wrong}, must be a DNS name"
        raise ObjectError(f"{document.kind}/{display_name(raw)}", (fault,))
    match document.kind:
        case "Service":
            return read_service(raw)
        case "Pod":
            return parse_pod(raw) if node_of_pod(raw) == node_name else None
        case "Node":
            return parse_node(raw) if name == node_name else None
        case _:
            return parse_policy(raw, redirect)


class _Loader(yaml.CSafeLoader):
    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._flattened: dict[int, yaml.MappingNode] = {}
        """By identity. A mapping that is merged into others comes by several times, its merged keys then in place."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if id(node) in self._flattened:
            return
        self._flattened[id(node)] = node
        seen: set[str] = set()
        merges = False
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise _refusal(key, f"key {shown(key.value)} is there twice")
                seen.add(key.value)
            if key.tag == _MERGE:
                merges = True
                if isinstance(value, yaml.SequenceNode) and len(value.value) > _MAX_MERGE_LIST:
                    raise _refusal(node, f"merges (<<) more than {_MAX_MERGE_LIST} mappings")
        super().flatten_mapping(node)
        if merges and len(node.value) > _MAX_MERGED:
            raise _refusal(node, f"merges (<<) more than {_MAX_MERGED} keys")


class _KubectlLoader(KubectlScalars, _Loader):
    pass


def _refusal(node: yaml.Node, problem: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _load(data: bytes, loader: type[_Loader] | None) -> list[object]:
    """None: JSON."""
    if len(data) > MAX_BYTES:
        raise FileFault(f"is larger than {MAX_BYTES >> 20} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FileFault(f"line {line}: is not UTF-8 text") from None
    try:
        if loader is None:
            return [json.loads(text, object_pairs_hook=_unique_keys)]
        _check_depth(text)
        return list(yaml.load_all(text, Loader=loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}: " if mark else ""
        raise FileFault(f"{place}does not parse: {_one_line(error.problem or error.context or '')}") from None
    except json.JSONDecodeError as error:
        raise FileFault(f"line {error.lineno}: does not parse: {error.msg}") from None
    except RecursionError:
        raise FileFault("is nested too deeply") from None
    except FileFault:
        raise
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        # PyYAML's constructors raise any of these for scalars that only look like a number or a time.
        raise FileFault(f"does not parse: {_one_line(str(error))}") from None


def _one_line(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 160 else words[:157] + "..."


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {shown(key)} is there twice")
        found[key] = value
    return found


def _check_depth(text: str) -> None:
    """Raises FileFault: PyYAML's C loader recurses on the C stack and would take the process down."""
    openers = text.count("[") + text.count("{")
    longest = max(map(len, text.splitlines()), default=0)
    # Block collections nest by indentation: at most two levels a column.
    if openers + 2 * longest <= _MAX_DEPTH * 4:
        return
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            depth += 1
            if depth > _MAX_DEPTH:
                place = f"line {event.start_mark.line + 1}: " if event.start_mark else ""
                raise FileFault(f"{place}is nested too deeply, at most {_MAX_DEPTH} levels are read")
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            depth -= 1
