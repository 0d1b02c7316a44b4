"""Rule P4: label selectors mean what Kubernetes means."""

from __future__ import annotations

import pytest

from config.input.faults import Report
from config.input.fields import Fields
from k8s.objects.model import LabelSelector
from k8s.objects.selector import matches, read_selector

LABELS = frozenset({("app", "dns"), ("tier", "node"), ("empty", "")})


def read(raw: object, *, needed: bool = False) -> tuple[LabelSelector, list[str]]:
    report = Report()
    selector = read_selector(Fields({"s": raw}, "", report), "s", needed=needed)
    return selector, [str(fault) for fault in report.faults]


def expression(key: str, operator: str, *values: str) -> dict[str, object]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({}, True),
        ({"matchLabels": {"app": "dns"}}, True),
        ({"matchLabels": {"app": "dns", "tier": "node"}}, True),
        ({"matchLabels": {"app": "dns", "tier": "x"}}, False),
        ({"matchLabels": {"empty": ""}}, True),
        (expression("app", "In", "web", "dns"), True),
        (expression("app", "In", "web"), False),
        (expression("none", "In", "web"), False),
        (expression("app", "NotIn", "web"), True),
        (expression("app", "NotIn", "dns"), False),
        (expression("none", "NotIn", "dns"), True),
        (expression("app", "Exists"), True),
        (expression("none", "Exists"), False),
        (expression("none", "DoesNotExist"), True),
        (expression("app", "DoesNotExist"), False),
        ({"matchLabels": {"app": "dns"}, **expression("tier", "DoesNotExist")}, False),
    ],
)
def test_p4_every_part_must_hold(raw: object, expected: bool) -> None:
    selector, faults = read(raw)
    assert faults == []
    assert matches(selector, LABELS) is expected


@pytest.mark.parametrize(
    ("raw", "begins"),
    [
        (expression("a", "In"), "s.matchExpressions[0].values: is missing or empty"),
        (expression("a", "Exists", "x"), "s.matchExpressions[0].values: has values; with Exists"),
        (expression("a", "in", "x"), "s.matchExpressions[0].operator: 'in' is wrong"),
        ({"matchExpressions": [{"key": "a"}]}, "s.matchExpressions[0].operator: is missing"),
        ({"matchExpressions": [{"operator": "Exists"}]}, "s.matchExpressions[0].key: is missing"),
        (expression("a b", "Exists"), "s.matchExpressions[0].key: 'a b' is wrong"),
        (expression("a", "In", "-x"), "s.matchExpressions[0].values[0]: '-x' is wrong"),
        ({"matchLabels": {"a": True}}, "s.matchLabels.a: true is wrong"),
        ({"matchLabels": {"a": "x" * 64}}, "s.matchLabels.a: "),
        ({"matchLabels": {"UP/a": "x"}}, "s.matchLabels: key 'UP/a' is wrong"),
        ({"matchLabels": {"x.io/": "x"}}, "s.matchLabels: key 'x.io/' is wrong"),
        ({"matchLabels": {3: "x"}}, "s.matchLabels: key 3 is wrong"),
        ({"matchLabels": []}, "s.matchLabels: an empty list is wrong; it must be a mapping"),
        ([], "s: an empty list is wrong; it must be a mapping"),
    ],
)
def test_p4_a_wrong_selector_has_one_fault_that_names_the_field(raw: object, begins: str) -> None:
    (fault,) = read(raw)[1]
    assert fault.startswith(begins)


def test_p4_a_prefixed_label_key_is_right() -> None:
    assert read({"matchLabels": {"app.kubernetes.io/name": "x_y.Z-1"}}, needed=True)[1] == []
