"""What a source says about an object that it can't fully understand. The API and a directory say the same. Pure."""

from __future__ import annotations

from k8s.objects.identity import identity, identity_text
from k8s.objects.metadata import ObjectError
from k8s.objects.model import KubeObject, Policy, Service


def warnings_about(found: KubeObject) -> tuple[str, ...]:
    """One line for each fault of an object that is used nevertheless. The faults of a policy are not among them, since
    they are in its state."""
    name = identity_text(identity(found))
    match found:
        case Service():
            consequence = "the Service has no frontend until this is corrected"
            return tuple(f"{name}: {fault}; {consequence}" for fault in found.faults)
        case Policy():
            return tuple(f"{name}: {fault}; it has no effect" for fault in found.unknown_fields)
        case _:
            return ()


def warning_of_deletion(error: ObjectError) -> str:
    """About an object that can't be used at all (P5)."""
    return f"{error}; the object counts as deleted until this is corrected"
