"""The result of `run.py convert` for one object. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from k8s.objects.documents import Document
from k8s.objects.metadata import full_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    given: str
    """KIND/NAMESPACE/NAME of the object that was converted."""
    objects: tuple[Mapping[str, Any], ...] = ()
    """Ours, ready to be written as YAML; none when there are faults, or nothing to write."""
    remarks: tuple[str, ...] = ()
    """What has no counterpart or means something else, one sentence each, with its field."""
    faults: tuple[str, ...] = ()


def given_name(document: Document) -> str:
    return full_name(document.kind, document.raw)
