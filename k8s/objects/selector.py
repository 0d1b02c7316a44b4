"""Kubernetes label selectors: reading, validation, matching (rule P4), and writing as a parameter. Pure."""

from __future__ import annotations

from config.domain.names import DNS_SUBDOMAIN, QUALIFIED_NAME
from config.input.faults import WrongValue, shown
from config.input.fields import Fields
from k8s.objects.model import LabelSelector, Requirement

_OPERATORS = {word: word for word in ("In", "NotIn", "Exists", "DoesNotExist")}
LABEL_KEY_RULE = "a label key ([prefix/]name, the name up to 63 letters, digits, '-', '_' or '.')"
LABEL_VALUE_RULE = "a label value (a string of up to 63 letters, digits, '-', '_' or '.')"


def matches(selector: LabelSelector, labels: frozenset[tuple[str, str]]) -> bool:
    """Whether every part of the selector holds. As in Kubernetes, an empty selector matches everything."""
    if not labels.issuperset(selector.match_labels):
        return False
    if not selector.match_expressions:
        return True
    by_key = dict(labels)
    return all(_holds(requirement, by_key) for requirement in selector.match_expressions)


def _holds(requirement: Requirement, labels: dict[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value is not None and value in requirement.values
        case "NotIn":
            return value is None or value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    raise ValueError(f"unknown selector operator: {requirement.operator}")


def is_label_key(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    return bool(QUALIFIED_NAME.fullmatch(name)) and (not slash or bool(DNS_SUBDOMAIN.fullmatch(prefix)))


def is_label_value(value: str) -> bool:
    return value == "" or bool(QUALIFIED_NAME.fullmatch(value))


def read_selector(parent: Fields, name: str, *, needed: bool) -> LabelSelector:
    """The selector in a field; with `needed`, an absent or empty one is a fault."""
    fields = parent.mapping(name, ("matchLabels", "matchExpressions"))
    if fields is None:
        if needed:
            parent.fault(name, "is missing; it must have matchLabels or matchExpressions")
        return LabelSelector()
    label_fields = fields.mapping("matchLabels")
    labels = () if label_fields is None else _read_labels(label_fields)
    entries = fields.items("matchExpressions")
    requirements = [_read_requirement(Fields(raw, path, fields.report)) for path, raw in entries]
    if needed and all(fields.get(part) in (None, {}, []) for part in ("matchLabels", "matchExpressions")):
        parent.fault(
            name, "is empty; it must have matchLabels or matchExpressions (an empty selector would select every Pod)"
        )
    return LabelSelector(
        match_labels=labels,
        match_expressions=tuple(requirement for requirement in requirements if requirement is not None),
    )


def _read_labels(fields: Fields) -> tuple[tuple[str, str], ...]:
    labels = []
    for key, value in fields.entries():
        if not isinstance(key, str) or not is_label_key(key):
            fields.report.fault(fields.path, f"key {shown(key)} is wrong; it must be {LABEL_KEY_RULE}")
        elif not isinstance(value, str) or not is_label_value(value):
            fields.fault(key, str(WrongValue(value, LABEL_VALUE_RULE)))
        else:
            labels.append((key, value))
    return tuple(sorted(labels))


def _read_requirement(fields: Fields) -> Requirement | None:
    key = fields.text("key", is_label_key, LABEL_KEY_RULE, needed=True)
    operator = fields.choice("operator", _OPERATORS)
    if not fields.has("operator"):
        fields.fault("operator", f"is missing; it must be {' or '.join(_OPERATORS)}")
    values = []
    for path, value in fields.items("values"):
        if isinstance(value, str) and is_label_value(value):
            values.append(value)
        else:
            fields.report.fault(path, str(WrongValue(value, LABEL_VALUE_RULE)))
    has_values = fields.get("values") not in (None, [])
    if operator in ("In", "NotIn") and not has_values:
        fields.fault("values", f"is missing or empty; with {operator} it must have at least one value")
    if operator in ("Exists", "DoesNotExist") and has_values:
        fields.fault("values", f"has values; with {operator} it must be absent or empty")
    if operator is None:
        return None
    return Requirement(key=key, operator=operator, values=frozenset(values))


def selector_text(selector: LabelSelector) -> str:
    """The value of the API's `labelSelector` parameter."""
    parts = [f"{key}={value}" for key, value in selector.match_labels]
    for requirement in selector.match_expressions:
        values = ",".join(sorted(requirement.values))
        match requirement.operator:
            case "In":
                parts.append(f"{requirement.key} in ({values})")
            case "NotIn":
                parts.append(f"{requirement.key} notin ({values})")
            case "Exists":
                parts.append(requirement.key)
            case _:
                parts.append(f"!{requirement.key}")
    return ",".join(parts)
