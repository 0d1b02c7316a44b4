"""What the controller wants to write to the API server, and the result, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from config.domain.ids import PolicyKey
from k8s.objects.model import PolicyStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusWrite:
    """The whole `status` of one policy."""

    key: PolicyKey
    uid: str
    status: PolicyStatus
    former_reason: str
    """Reason of the condition that is replaced; "" when there was none."""
    decided_at: str
    """RFC 3339."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventWrite:
    """An Event, because the reason of a policy's condition changed."""

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
    """This write was refused, for its content or because the policy is gone; others may succeed."""
    UNAVAILABLE = "unavailable"
    """Nothing can be written now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteAnswer:
    result: WriteResult
    version: int = 0
    """resourceVersion of the policy after the write."""
    gone: bool = False
    """The write was refused because the policy no longer exists, or because another one has its name now."""
    error: str = ""
    retry_after: float = 0.0
    """Seconds that the API server asks us to wait before the next write."""
