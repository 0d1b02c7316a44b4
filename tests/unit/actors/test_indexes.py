"""The indexes of Pods and Nodes: after any history they are as if only the present objects had been added."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.resolving.indexes import NodeIndex, PodIndex, demanded_label
from config.domain.ids import NamespacedName
from k8s.objects.model import LabelSelector, Node, Pod, Requirement
from k8s.objects.selector import matches

WEB = LabelSelector(match_labels=(("app", "web"),))
WEB_IN_B = LabelSelector(match_labels=(("app", "web"), ("zone", "b")))
ANY_APP = LabelSelector(match_expressions=(Requirement(key="app", operator="Exists"),))
NO_APP = LabelSelector(match_expressions=(Requirement(key="app", operator="DoesNotExist"),))
SELECTORS = (WEB, WEB_IN_B, ANY_APP, NO_APP)

_LABELS = st.frozensets(st.sampled_from([("app", "web"), ("zone", "b"), ("zone", "a")]), max_size=2)
_PODS = st.builds(
    lambda namespace, name, labels: Pod(key=NamespacedName(namespace, name), labels=labels),
    st.sampled_from("xy"),
    st.sampled_from("abc"),
    _LABELS,
)
_NODES = st.builds(lambda name, labels: Node(name=name, labels=labels), st.sampled_from("abc"), _LABELS)


@pytest.mark.parametrize(
    ("selector", "label"), [(WEB, ("app", "web")), (WEB_IN_B, ("app", "web")), (ANY_APP, None), (LabelSelector(), None)]
)
def test_the_first_label_that_a_selector_demands_is_found(
    selector: LabelSelector, label: tuple[str, str] | None
) -> None:
    assert demanded_label(selector) == label


@given(st.lists(st.tuples(_PODS, st.booleans()), max_size=20))
def test_the_pods_that_a_selector_matches_are_among_its_candidates(steps: list[tuple[Pod, bool]]) -> None:
    index = PodIndex()
    left: dict[NamespacedName, Pod] = {}
    for pod, stays in steps:
        if stays:
            index.put(pod)
            left[pod.key] = pod
        else:
            index.drop(pod.key)
            left.pop(pod.key, None)
    for key in (pod.key for pod, _ in steps):
        assert index.get(key) == left.get(key)
    for namespaces in (None, ["x"], ["x", "y"], ["nowhere"], []):
        there = [pod for pod in left.values() if namespaces is None or pod.key.namespace in namespaces]
        for selector in SELECTORS:
            candidates = list(index.candidates(namespaces, selector))
            assert len(candidates) == len({pod.key for pod in candidates}), "each once"
            assert all(pod in there for pod in candidates)
            assert all(pod in candidates for pod in there if matches(selector, pod.labels))


def test_only_pods_with_the_label_are_candidates() -> None:
    index = PodIndex()
    for number in range(100):
        index.put(Pod(key=NamespacedName("x", f"p{number}"), labels=frozenset({("app", f"a{number}")})))
    (found,) = index.candidates(["x"], LabelSelector(match_labels=(("app", "a7"),)))
    assert found.key.name == "p7"


def test_removed_pods_leave_nothing_behind() -> None:
    index = PodIndex()
    pod = Pod(key=NamespacedName("x", "p"), labels=frozenset({("app", "web")}))
    index.put(pod)
    index.drop(pod.key)
    index.drop(pod.key)
    assert not index._by_label and not index._pods


@given(st.lists(st.tuples(_NODES, st.booleans(), st.sampled_from([None, *SELECTORS])), max_size=20))
def test_the_nodes_that_a_selector_matches_are_found(steps: list[tuple[Node, bool, LabelSelector | None]]) -> None:
    index = NodeIndex()
    left: dict[str, Node] = {}
    for node, stays, asked in steps:
        if stays:
            index.put(node)
            left[node.name] = node
        else:
            index.drop(node.name)
            left.pop(node.name, None)
        expected = {each.name for each in left.values() if asked is None or matches(asked, each.labels)}
        assert set(index.selected(asked)) == expected
        assert index.get(node.name) == left.get(node.name)
    assert {each.name for each in index} == left.keys()


def test_an_answer_is_computed_once_while_no_node_changes() -> None:
    index = NodeIndex()
    index.put(Node(name="a", labels=frozenset({("app", "web")})))
    assert index.selected(WEB) is index.selected(WEB)
    index.forget(WEB)
    assert not index._selected
