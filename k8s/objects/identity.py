"""The identity of an object across all kinds: its kind and key. Pure."""

from __future__ import annotations

from typing import TypeAlias

from config.domain.ids import NamespacedName, ObjectKey, PolicyKey, PolicyKind
from k8s.objects.metadata import DEFAULT_NAMESPACE, key_name
from k8s.objects.model import KubeObject, Node, Pod, Policy, Service
from k8s.objects.raw import raw_metadata

POLICY_KINDS = frozenset(str(kind) for kind in PolicyKind)

Identity: TypeAlias = tuple[str, ObjectKey]
"""Kind and key."""


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
    """The identity of a raw object. It is read from the metadata only, so that it is known even when the rest of the
    object can't be understood. None when the metadata has no name."""
    metadata = raw_metadata(raw)
    name = key_name(metadata.get("name"))
    if not name:
        return None
    if kind in POLICY_KINDS:
        return kind, PolicyKey(PolicyKind(kind), name)
    if kind == "Node":
        return kind, name
    namespace = metadata.get("namespace")
    return kind, NamespacedName(namespace if namespace and isinstance(namespace, str) else DEFAULT_NAMESPACE, name)


def identity_text(object_id: Identity) -> str:
    """`LocalRedirectPolicy/dns`, `Pod/kube-system/dns-7f9c`."""
    kind, key = object_id
    return f"{kind}/{key}" if isinstance(key, (str, NamespacedName)) else f"{kind}/{key.name}"
