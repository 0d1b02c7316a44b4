"""Object metadata: names, creation time and labels. Pure."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime

from config.domain.ids import NamespacedName
from config.domain.names import DNS_LABEL, DNS_SUBDOMAIN
from config.input.faults import Report, WrongValue, shown
from config.input.fields import Fields
from k8s.objects.raw import raw_metadata

MAX_NAME = 253
DEFAULT_NAMESPACE = "default"
"""Where a namespaced object is whose manifest names no namespace."""


class ObjectError(ValueError):
    """A Service, Pod or Node that can't be used: which object, which field, what is wrong."""

    def __init__(self, name: str, faults: tuple[str, ...]) -> None:
        super().__init__(f"{name}: {'; '.join(faults)}")
        self.faults = faults


def key_name(raw: object) -> str:
    """The name under which an object is kept, even if that name is invalid: printable ASCII, no longer than a valid
    name. "" when there is none."""
    if not isinstance(raw, str):
        return ""
    name = raw if raw.isascii() and raw.isprintable() else ascii(raw)[1:-1]
    if len(name) <= MAX_NAME:
        return name
    # Two names that differ only after the cut must stay two objects.
    digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    return f"{name[:40]}...{digest}"


def read_created_at(metadata: Fields) -> str:
    """creationTimestamp in UTC and whole seconds, as the API server keeps it, so that strings sort by time.

    "" when it is absent or faulty.
    """
    raw = metadata.get("creationTimestamp")
    if raw is None:
        return ""
    try:
        if isinstance(raw, str):
            raw = datetime.fromisoformat(raw)
        elif isinstance(raw, date) and not isinstance(raw, datetime):
            raw = datetime(raw.year, raw.month, raw.day)  # noqa: DTZ001  (YAML's dates have no zone)
        if isinstance(raw, datetime):
            utc = raw.astimezone(UTC) if raw.tzinfo else raw
            return utc.replace(tzinfo=None, microsecond=0).isoformat() + "Z"
    except (ValueError, OverflowError):
        pass
    metadata.fault("creationTimestamp", str(WrongValue(raw, "a time like 2026-01-31T12:00:00Z")))
    return ""


def read_metadata(fields: Fields) -> Fields:
    """The fields of an object's metadata; no fields when that is missing, which is a fault."""
    return fields.required("metadata") or Fields({}, "metadata", Report())


def check_name(metadata: Fields) -> None:
    metadata.text("name", DNS_SUBDOMAIN.fullmatch, "a DNS name of at most 253 characters", needed=True)


def read_labels(metadata: Fields) -> frozenset[tuple[str, str]]:
    """The labels of an object. Only that they are strings is checked, since the API server checks the rest."""
    fields = metadata.mapping("labels")
    if fields is None:
        return frozenset()
    for key, value in fields.entries():
        if not isinstance(key, str) or not isinstance(value, str):
            wrong = f"key {shown(key)} with value {shown(value)} is wrong"
            fields.report.fault(fields.path, f"{wrong}; keys and values must be strings")
    return frozenset((key, value) for key, value in fields.entries() if isinstance(key, str) and isinstance(value, str))


def read_namespaced_name(metadata: Fields) -> NamespacedName:
    check_name(metadata)
    return NamespacedName(read_namespace(metadata), key_name(metadata.get("name")))


def read_namespace(metadata: Fields) -> str:
    namespace = metadata.text("namespace", DNS_LABEL.fullmatch, "a DNS label of at most 63 characters")
    return namespace or DEFAULT_NAMESPACE


def display_name(raw: object) -> str:
    """`name` or `namespace/name` of a raw object, for messages."""
    metadata = raw_metadata(raw)
    name, namespace = key_name(metadata.get("name")), key_name(metadata.get("namespace"))
    return "/".join(part for part in (namespace, name or "(no name)") if part)


def full_name(kind: str, raw: object) -> str:
    """KIND/NAME or KIND/NAMESPACE/NAME of a raw object, for messages."""
    return f"{kind}/{display_name(raw)}"


def refuse_faulty(kind: str, raw: object, report: Report) -> None:
    """Raises ObjectError when the report has a fault."""
    if report.faults:
        raise ObjectError(full_name(kind, raw), report.all_faults())
