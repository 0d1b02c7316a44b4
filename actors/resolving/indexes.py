"""Indexes of Pods and Nodes, so that deciding a policy looks only at the objects that it may select. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import TypeAlias

from config.domain.ids import NamespacedName
from k8s.objects.model import LabelSelector, Node, Pod
from k8s.objects.selector import matches

Label: TypeAlias = tuple[str, str]


def demanded_label(selector: LabelSelector) -> Label | None:
    """Returns one label that all matching objects have; None if the selector demands none by equality."""
    return selector.match_labels[0] if selector.match_labels else None


class PodIndex:
    def __init__(self) -> None:
        self._pods: dict[NamespacedName, Pod] = {}
        self._by_label: defaultdict[str, defaultdict[Label | None, dict[NamespacedName, Pod]]] = defaultdict(
            lambda: defaultdict(dict)
        )
        """Namespace -> label -> the Pods with that label. The label None has all Pods of the namespace."""

    def __iter__(self) -> Iterator[Pod]:
        return iter(self._pods.values())

    def get(self, key: NamespacedName) -> Pod | None:
        return self._pods.get(key)

    def put(self, pod: Pod) -> None:
        self.drop(pod.key)
        self._pods[pod.key] = pod
        by_label = self._by_label[pod.key.namespace]
        for label in (None, *pod.labels):
            by_label[label][pod.key] = pod

    def drop(self, key: NamespacedName) -> None:
        pod = self._pods.pop(key, None)
        if pod is None:
            return
        by_label = self._by_label[key.namespace]
        for label in (None, *pod.labels):
            del by_label[label][key]
            if not by_label[label]:
                del by_label[label]
        if not by_label:
            del self._by_label[key.namespace]

    def candidates(self, namespaces: Iterable[str] | None, selector: LabelSelector) -> Iterator[Pod]:
        """Yields the Pods that the selector may match. `namespaces`: None means all."""
        label = demanded_label(selector)
        for namespace in self._by_label if namespaces is None else namespaces:
            by_label = self._by_label.get(namespace)
            if by_label is not None:
                yield from by_label.get(label, {}).values()


class NodeIndex:
    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._selected: dict[LabelSelector, frozenset[str]] = {}
        """A cache of `selected`: selector -> names of Nodes. It is cleared when a Node changes."""

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def get(self, name: str) -> Node | None:
        return self._nodes.get(name)

    def put(self, node: Node) -> None:
        self._nodes[node.name] = node
        self._selected.clear()

    def drop(self, name: str) -> None:
        self._nodes.pop(name, None)
        self._selected.clear()

    def selected(self, selector: LabelSelector | None) -> Collection[str]:
        """Returns the names of the Nodes that the selector matches; None matches all."""
        if selector is None:
            return self._nodes.keys()
        found = self._selected.get(selector)
        if found is None:
            found = frozenset(node.name for node in self if matches(selector, node.labels))
            self._selected[selector] = found
        return found

    def forget(self, selector: LabelSelector) -> None:
        """A policy no longer has this selector."""
        self._selected.pop(selector, None)
