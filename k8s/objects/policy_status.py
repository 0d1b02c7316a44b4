"""The `status` of a raw policy -> `PolicyStatus`. Pure."""

from __future__ import annotations

from dataclasses import replace

from config.input.faults import Report
from config.input.fields import Fields
from config.settings import RedirectSettings
from k8s.objects.model import Policy, PolicyStatus
from k8s.objects.policy import parse_policy
from k8s.objects.raw import raw_metadata

CONDITION = "Accepted"


def parse_policy_with_status(raw: object, redirect: RedirectSettings) -> Policy:
    return replace(parse_policy(raw, redirect), status=parse_status(raw))


def parse_status(raw: object) -> PolicyStatus:
    """The status of a raw policy. Never raises: a status that is not as we write it differs from what it should be, and
    is written again."""
    report = Report()  # its faults do not matter
    fields = Fields(raw, "", report)
    status = fields.mapping("status") or Fields({}, "status", report)
    conditions = [Fields(each, path, report) for path, each in status.items("conditions")]
    condition = next((each for each in conditions if each.get("type") == CONDITION), Fields({}, "", report))
    return PolicyStatus(
        accepted=_text(condition, "status"),
        reason=_text(condition, "reason"),
        message=_text(condition, "message"),
        observed_generation=_number(condition, "observedGeneration") or 0,
        transitioned_at=_text(condition, "lastTransitionTime"),
        frontend=_text(status, "frontend"),
        frontends=tuple(str(each) for _, each in status.items("frontends")),
        nodes_ready=_number(status, "nodesReady"),
        nodes_selected=_number(status, "nodesSelected"),
        nodes=_text(status, "nodes"),
        version=version_of(raw),
    )


def version_of(raw: object) -> int:
    """resourceVersion, which the API server guarantees to be a growing number (KEP-5504); 0 if there is none."""
    version = raw_metadata(raw).get("resourceVersion")
    return int(version) if isinstance(version, str) and version.isascii() and version.isdecimal() else 0


def _text(fields: Fields, name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _number(fields: Fields, name: str) -> int | None:
    value = fields.get(name)
    return value if isinstance(value, int) else None
