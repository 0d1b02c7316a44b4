"""The Lease object over which the controller's processes elect a leader: reading it, and what to write into it. Pure.

The fields mean what they mean to client-go's election (https://pkg.go.dev/k8s.io/client-go/tools/leaderelection).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from k8s.objects.raw import Raw

NAME = "balancing-controller"
LEASES_PATH = "/apis/coordination.k8s.io/v1/leases"
"""The Leases of all namespaces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """What a Lease says about the election."""

    holder: str
    """Identity of the leader; "" when nobody leads."""
    acquired_at: datetime | None = None
    renewed_at: datetime | None = None
    transitions: int = 0
    """How often the holder has changed."""


def leases_path(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"


def read_record(lease: Raw) -> LeaseRecord:
    """Never raises: a field that can't be understood counts as absent."""
    spec = lease.get("spec")
    spec = spec if isinstance(spec, dict) else {}
    holder, transitions = spec.get("holderIdentity"), spec.get("leaseTransitions")
    return LeaseRecord(
        holder=holder if isinstance(holder, str) else "",
        acquired_at=_read_time(spec.get("acquireTime")),
        renewed_at=_read_time(spec.get("renewTime")),
        transitions=transitions if isinstance(transitions, int) else 0,
    )


def new_lease(namespace: str, identity: str, now: datetime, lease_duration_seconds: int) -> Raw:
    """The body of a create request."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": NAME, "namespace": namespace},
        "spec": _spec({}, LeaseRecord(holder=identity, acquired_at=now, renewed_at=now), lease_duration_seconds),
    }


def held_lease(lease: Raw, identity: str, now: datetime, lease_duration_seconds: int) -> Raw:
    """The body of an update by which `identity` takes or renews the Lease.

    It keeps the resourceVersion, so that the API server refuses the update (409) if somebody else was quicker.
    """
    record = read_record(lease)
    is_ours = record.holder == identity
    held = LeaseRecord(
        holder=identity,
        acquired_at=record.acquired_at if is_ours and record.acquired_at else now,
        renewed_at=now,
        transitions=record.transitions if is_ours else record.transitions + 1,
    )
    return {**lease, "spec": _spec(lease, held, lease_duration_seconds)}


def released_lease(lease: Raw, now: datetime) -> Raw:
    """The body of an update by which the holder gives the Lease up, so that nobody has to wait for its end."""
    record = read_record(lease)
    released = LeaseRecord(holder="", acquired_at=record.acquired_at, renewed_at=now, transitions=record.transitions)
    return {**lease, "spec": _spec(lease, released, 1)}


def _spec(lease: Raw, record: LeaseRecord, lease_duration_seconds: int) -> Raw:
    """Keeps the fields of the present spec that the election does not use."""
    return {
        **(lease.get("spec") or {}),
        "holderIdentity": record.holder,
        "leaseDurationSeconds": lease_duration_seconds,
        "acquireTime": _written_time(record.acquired_at),
        "renewTime": _written_time(record.renewed_at),
        "leaseTransitions": record.transitions,
    }


def _read_time(raw: object) -> datetime | None:
    """A MicroTime (RFC 3339)."""
    try:
        when = datetime.fromisoformat(raw) if isinstance(raw, str) else None
    except ValueError:
        return None
    return when.astimezone(UTC) if when and when.tzinfo else None


def _written_time(when: datetime | None) -> str | None:
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if when else None
