"""Which lists and watches the API server is asked for, and how."""

from __future__ import annotations

import pytest

from config.domain.ids import NamespacedName, PolicyKind
from k8s.objects.model import LabelSelector, PodQuery, Requirement
from k8s.objects.selector import selector_text
from k8s.sources import resources
from k8s.sources.source import Topic

SELECTORS = {
    "labels": (LabelSelector(match_labels=(("a", "b"), ("x.io/y", ""))), "a=b,x.io/y="),
    "In": (
        LabelSelector(match_expressions=(Requirement(key="a", operator="In", values=frozenset("cb")),)),
        "a in (b,c)",
    ),
    "NotIn": (
        LabelSelector(match_expressions=(Requirement(key="a", operator="NotIn", values=frozenset("b")),)),
        "a notin (b)",
    ),
    "Exists": (LabelSelector(match_expressions=(Requirement(key="a", operator="Exists"),)), "a"),
    "DoesNotExist": (LabelSelector(match_expressions=(Requirement(key="a", operator="DoesNotExist"),)), "!a"),
    "both": (
        LabelSelector(match_labels=(("a", "b"),), match_expressions=(Requirement(key="c", operator="Exists"),)),
        "a=b,c",
    ),
    "none": (LabelSelector(), ""),
}


@pytest.mark.parametrize("name", SELECTORS)
def test_a_selector_is_written_as_the_api_server_reads_it(name: str) -> None:
    selector, text = SELECTORS[name]
    assert selector_text(selector) == text


def _services(number: int) -> frozenset[Topic]:
    return frozenset(NamespacedName("ns", f"s{i}") for i in range(number))


def _queries(number: int) -> frozenset[Topic]:
    return frozenset(
        PodQuery(namespace="", selector=LabelSelector(match_labels=(("app", f"a{i}"),))) for i in range(number)
    )


def test_up_to_twenty_services_are_watched_one_by_one() -> None:
    found = resources.resources_for(_services(20))
    assert len(found) == 20
    assert {str(each) for each in found} >= {"/api/v1/namespaces/ns/services (metadata.name=s7)"}


def test_more_than_twenty_services_are_one_watch() -> None:
    assert resources.resources_for(_services(21)) == {resources.ALL_SERVICES}


def test_pod_queries_and_services_are_counted_apart() -> None:
    assert len(resources.resources_for(_services(20) | _queries(20))) == 40
    assert resources.resources_for(_queries(21)) == {resources.ALL_PODS}


def test_a_query_of_one_namespace_and_one_of_all_are_two_watches() -> None:
    selector = LabelSelector(match_labels=(("app", "dns"),))
    topics = frozenset(PodQuery(namespace=each, selector=selector) for each in ("", "kube-system"))
    assert {str(each) for each in resources.resources_for(topics)} == {
        "/api/v1/pods (app=dns)",
        "/api/v1/namespaces/kube-system/pods (app=dns)",
    }


def test_only_the_other_products_policies_may_be_absent() -> None:
    assert not resources.policies(PolicyKind.LOCAL_REDIRECT).optional
    assert resources.policies(PolicyKind.BALANCING).optional
