"""One decision about a call, with the names that people know. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bpf.maps.rows import PassReason
from config.domain.addresses import Endpoint, Frontend

HOST = "host"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedDecision:
    time: str
    """RFC 3339, in UTC."""
    hook: str
    client: str
    """`namespace/pod`, `host`, or "" when nobody knows."""
    client_netns: int
    cgroup: Path | None
    """The caller's own cgroup; None when it is gone or not visible."""
    pid: int
    command: str
    frontend: Frontend
    policy: str
    reason: PassReason | None
    """Why the call passed; None for a redirect."""
    backend: Endpoint | None
    """None for a pass."""

    @property
    def verdict(self) -> str:
        return "redirect" if self.reason is None else "pass"


def rfc3339(unix_seconds: float) -> str:
    """In UTC, with milliseconds."""
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
