"""One decision with the names that people know, and which of them a user wants to see. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bpf.explaining.call import ClientKind, ClientName
from bpf.rows import PassReason
from config.domain.addresses import Endpoint, Frontend

HOST = "host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
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


def is_chosen(line: Line, policy: str | None, client: ClientName | None, mount: Path) -> bool:
    """None chooses all of them. `mount` is where the cgroup2 hierarchy is mounted."""
    return (policy is None or line.policy == policy) and (client is None or _is_from(line, client, mount))


def _is_from(line: Line, client: ClientName, mount: Path) -> bool:
    match client.kind:
        case ClientKind.HOST:
            return line.client == HOST
        case ClientKind.PROCESS:
            return line.pid == client.pid
        case ClientKind.POD:
            return line.client == client.text
        case ClientKind.CGROUP:
            wanted = (client.path, mount / str(client.path).lstrip("/"))
            return line.cgroup is not None and any(line.cgroup.is_relative_to(each) for each in wanted)
