"""What the API server refuses in a policy although an agent would accept it; for `validate`. Pure.

An agent accepts such a manifest in a directory, since metadata that it does not use can do no harm.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from config.input.faults import Report, WrongValue, shown
from config.input.fields import Fields
from k8s.objects.raw import raw_metadata
from k8s.objects.selector import LABEL_KEY_RULE, LABEL_VALUE_RULE, is_label_key, is_label_value

_METADATA = {
    "name": str,
    "generateName": str,
    "namespace": str,
    "selfLink": str,
    "uid": str,
    "resourceVersion": str,
    "generation": int,
    "creationTimestamp": str,
    "deletionTimestamp": str,
    "deletionGracePeriodSeconds": int,
    "labels": dict,
    "annotations": dict,
    "ownerReferences": list,
    "finalizers": list,
    "managedFields": list,
}
"""The fields of ObjectMeta and their types."""
_WORDS = {str: "a string (in quotes)", int: "a whole number", dict: "a mapping", list: "a list"}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[-+]\d\d:\d\d)")
_MAX_ANNOTATIONS = 256 << 10
_OWNER_FIELDS = ("apiVersion", "kind", "name", "uid")

_SELECTORS = ("spec.backend.endpointSelector", "spec.config.nodeLabelSelector")
_PORTS = ("spec.frontend.serviceMatcher.toPorts", "spec.frontend.addressMatcher.toPorts", "spec.backend.toPorts")
_MAX_PORTS = 128
_MAX_LABELS = 64
_MAX_VALUES = 64
"""The three limits of lists and mappings in k8s/crd.yaml (maxItems, maxProperties)."""


def api_faults(raw: object) -> Report:
    """Unknown fields of the metadata are among the faults."""
    report = Report()
    _check_metadata(Fields(raw_metadata(raw), "metadata", report, tuple(_METADATA)))
    for path in _PORTS:
        _check_size(raw, path, _MAX_PORTS, report)
    for path in _SELECTORS:
        _check_size(raw, f"{path}.matchLabels", _MAX_LABELS, report)
        _check_size(raw, f"{path}.matchExpressions", _MAX_LABELS, report)
        expressions = _at(raw, f"{path}.matchExpressions")
        for index, expression in enumerate(expressions if isinstance(expressions, list) else ()):
            values = expression.get("values") if isinstance(expression, dict) else None
            if isinstance(values, list) and len(values) > _MAX_VALUES:
                report.fault(f"{path}.matchExpressions[{index}].values", _too_many(values, _MAX_VALUES))
    for path, text in report.unknown:
        report.fault(path, text)
    return report


def _check_metadata(metadata: Fields) -> None:
    for name, kind in _METADATA.items():
        value = metadata.get(name)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            metadata.fault(name, str(WrongValue(value, _WORDS[kind])))
    for name in ("creationTimestamp", "deletionTimestamp"):
        value = metadata.get(name)
        if isinstance(value, str) and not _TIME.fullmatch(value):
            metadata.fault(name, str(WrongValue(value, "a time like 2026-01-31T12:00:00Z")))
    _check_strings(metadata, "labels", is_label_key, is_label_value)
    _check_strings(metadata, "annotations", lambda key: is_label_key(key.lower()), lambda _: True)
    _check_finalizers(metadata)
    _check_owners(metadata)


def _check_strings(metadata: Fields, name: str, is_key: Callable[[str], bool], is_value: Callable[[str], bool]) -> None:
    if not isinstance(metadata.get(name), dict):
        return
    fields = metadata.mapping(name) or Fields({}, metadata.at(name), metadata.report)
    size = 0
    for key, value in fields.entries():
        if not isinstance(key, str) or not is_key(key):
            metadata.fault(name, f"key {shown(key)} is wrong; it must be {LABEL_KEY_RULE}")
        elif value is None:
            continue  # to the API server this is an empty string
        elif not isinstance(value, str):
            fields.fault(key, str(WrongValue(value, _WORDS[str])))
        elif not is_value(value):
            fields.fault(key, str(WrongValue(value, LABEL_VALUE_RULE)))
        else:
            size += len(key.encode()) + len(value.encode())
    if name == "annotations" and size > _MAX_ANNOTATIONS:
        metadata.fault(name, f"{size} bytes are too many; they must be at most {_MAX_ANNOTATIONS}")


def _check_finalizers(metadata: Fields) -> None:
    if not isinstance(metadata.get("finalizers"), list):
        return
    for path, value in metadata.items("finalizers"):
        if not isinstance(value, str) or not is_label_key(value):
            metadata.report.fault(path, str(WrongValue(value, "a name like example.com/finalizer")))


def _check_owners(metadata: Fields) -> None:
    if not isinstance(metadata.get("ownerReferences"), list):
        return
    for path, value in metadata.items("ownerReferences"):
        owner = Fields(value, path, metadata.report)
        for name in _OWNER_FIELDS if isinstance(value, dict) else ():
            owner.text(name, bool, "a string", needed=True)


def _check_size(raw: object, path: str, most: int, report: Report) -> None:
    value = _at(raw, path)
    if isinstance(value, (list, dict)) and len(value) > most:
        report.fault(path, _too_many(value, most))


def _too_many(value: list[object] | dict[object, object], most: int) -> str:
    return f"{len(value)} entries are too many; they must be at most {most}"


def _at(raw: object, path: str) -> object:
    for part in path.split("."):
        raw = raw.get(part) if isinstance(raw, dict) else None
    return raw
