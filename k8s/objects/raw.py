"""Raw objects, as JSON and YAML give them. Pure."""

from __future__ import annotations

from typing import Any, TypeAlias

Raw: TypeAlias = dict[str, Any]


def raw_metadata(raw: object) -> Raw:
    """The metadata of a raw object; empty when it has none."""
    metadata = raw.get("metadata") if isinstance(raw, dict) else None
    return metadata if isinstance(metadata, dict) else {}
