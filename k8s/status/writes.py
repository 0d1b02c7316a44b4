"""What the controller writes to the API: a policy's `status` and Events; read and built here. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from config.domain.ids import PolicyKey
from k8s.objects.model import PolicyStatus
from k8s.objects.policy import API_VERSION
from k8s.objects.policy_status import CONDITION

Raw: TypeAlias = dict[str, Any]

COMPONENT = "balancing-controller"
EVENT_NAMESPACE = "default"
"""The API server wants Events of cluster-scoped objects there."""
_MESSAGE_LENGTH = 32_000
_EVENT_MESSAGE_LENGTH = 1024
_EVENT_NAME_LENGTH = 200
_WARNINGS = ("Conflict", "Invalid")


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusWrite:
    """`status` of one policy, whole."""

    key: PolicyKey
    uid: str
    status: PolicyStatus
    former_reason: str
    """Of the condition as it is replaced; "" when there was none."""
    decided_at: str
    """When: RFC 3339."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventWrite:
    """The reason of a policy's condition changed."""

    key: PolicyKey
    uid: str
    reason: str
    message: str
    happened_at: str
    """RFC 3339."""


Write: TypeAlias = StatusWrite | EventWrite


class WriteResult(StrEnum):
    """Also the `result` label of metrics."""

    WRITTEN = "written"
    REFUSED = "refused"
    """For what it is, or because the policy is gone: others may be written."""
    UNAVAILABLE = "unavailable"
    """Nothing can be written now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteAnswer:
    result: WriteResult
    version: int = 0
    """Of the policy as it is now."""
    gone: bool = False
    """Refused, since there is no such policy any more, or another one of the same name."""
    error: str = ""
    retry_after: float = 0.0
    """Seconds for which the API server wants to be left alone."""


def status_patch(status: PolicyStatus, uid: str) -> list[Raw]:
    """A JSON patch of the subresource `status`. It begins with a test of the uid, so that another policy that was
    created under the same name is not given it. (A merge patch can't do that: whatever it says of metadata is ignored.)
    """
    return [
        {"op": "test", "path": "/metadata/uid", "value": uid},
        {"op": "add", "path": "/status", "value": status_document(status)["status"]},
    ]


def status_document(status: PolicyStatus) -> Raw:
    """The part of a policy that the controller writes."""
    condition = {
        "type": CONDITION,
        "status": status.accepted,
        "observedGeneration": status.observed_generation,
        "lastTransitionTime": status.transitioned_at,
        "reason": status.reason,
        "message": status.message,
    }
    return {
        "status": {
            "conditions": [condition],
            "frontend": status.frontend,
            "frontends": list(status.frontends),
            "nodesReady": status.nodes_ready,
            "nodesSelected": status.nodes_selected,
            "nodes": status.nodes,
        },
    }


def event_document(event: EventWrite, *, suffix: str, instance: str) -> Raw:
    """`suffix` makes the name unique; `instance` is the process that reports."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{event.key.name[:_EVENT_NAME_LENGTH].rstrip('.-')}.{suffix}",
            "namespace": EVENT_NAMESPACE,
        },
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": str(event.key.kind),
            "name": event.key.name,
            "uid": event.uid,
        },
        "type": "Warning" if event.reason in _WARNINGS else "Normal",
        "reason": event.reason,
        "message": shortened(event.message, _EVENT_MESSAGE_LENGTH),
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": instance[:128],
        "firstTimestamp": event.happened_at,
        "lastTimestamp": event.happened_at,
        "count": 1,
    }


def shortened(text: str, length: int = _MESSAGE_LENGTH) -> str:
    """What the API server takes, which counts bytes in one place and characters in another: ours are ASCII."""
    return text if len(text) <= length else text[: length - 3] + "..."
