"""The JSON that the controller sends to the API server: a patch of a policy's `status`, and Events. Pure."""

from __future__ import annotations

from k8s.objects.model import PolicyStatus
from k8s.objects.policy import API_VERSION
from k8s.objects.policy_status import CONDITION
from k8s.objects.raw import Raw
from k8s.status.write_requests import EventWrite

COMPONENT = "balancing-controller"
EVENT_NAMESPACE = "default"
"""Where the API server requires the Events of cluster-scoped objects to be."""
_MESSAGE_LENGTH = 32_000
_EVENT_MESSAGE_LENGTH = 1024
_EVENT_NAME_LENGTH = 200
_WARNINGS = ("Conflict", "Invalid")


def status_patch(status: PolicyStatus, uid: str) -> list[Raw]:
    """A JSON patch of the subresource `status`.

    It begins with a test of the uid: if the policy was deleted and created again under the same name, the status must
    not land on the new one. A merge patch can't do that, since the API server ignores its metadata there.
    """
    return [
        {"op": "test", "path": "/metadata/uid", "value": uid},
        {"op": "add", "path": "/status", "value": status_document(status)},
    ]


def status_document(status: PolicyStatus) -> Raw:
    """The `status` of a policy."""
    condition = {
        "type": CONDITION,
        "status": status.accepted,
        "observedGeneration": status.observed_generation,
        "lastTransitionTime": status.transitioned_at,
        "reason": status.reason,
        "message": status.message,
    }
    return {
        "conditions": [condition],
        "frontend": status.frontend,
        "frontends": list(status.frontends),
        "nodesReady": status.nodes_ready,
        "nodesSelected": status.nodes_selected,
        "nodes": status.nodes,
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
    """The text, cut to what the API server accepts. It counts bytes in some fields and characters in others, which is
    the same for our messages, since they are ASCII."""
    return text if len(text) <= length else text[: length - 3] + "..."
