"""Reading the Pod template of a raw workload, such as a DaemonSet, whatever its fields hold. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from k8s.objects.raw import Raw, raw_metadata


def pod_spec(workload: Raw) -> Raw:
    """spec.template.spec; empty when there is none."""
    found: Any = workload
    for name in ("spec", "template", "spec"):
        found = found.get(name)
        if not isinstance(found, dict):
            return {}
    made: Raw = found
    return made


def labels_of(template: Raw) -> Raw:
    """A copy of the template's labels."""
    labels = raw_metadata(template).get("labels")
    return dict(labels) if isinstance(labels, dict) else {}


def arguments_of(container: Raw) -> list[str]:
    given = container.get("args")
    return [str(each) for each in given] if isinstance(given, list) else []


def first_flag(workload: Raw, name: str) -> str:
    """The value of a flag of the first container that has it; "" when there is none."""
    containers = mappings(pod_spec(workload).get("containers"))
    return next((flag for each in containers if (flag := _flag(arguments_of(each), name))), "")


def _flag(arguments: Sequence[str], name: str) -> str:
    """The value of `-name VALUE` or `-name=VALUE`, with one dash or two; "" when there is none."""
    for position, each in enumerate(arguments):
        flag, has_value, value = each.lstrip("-").partition("=")
        if each.startswith("-") and flag == name:
            return value if has_value else "".join(arguments[position + 1 : position + 2])
    return ""


def mappings(listed: object) -> list[Raw]:
    """The mappings in a list; empty for anything that is not a list."""
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
