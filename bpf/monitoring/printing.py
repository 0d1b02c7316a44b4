"""A decision as one line, for people or for JSON. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from bpf.monitoring.filters import Line


def rfc3339(unix_seconds: float) -> str:
    """In UTC, with milliseconds."""
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def document(line: Line) -> dict[str, object]:
    """The JSON of `monitor -o json` (docs/commands.md)."""
    return {
        "time": line.time,
        "hook": line.hook,
        "client": line.client,
        "client_netns": line.client_netns,
        "pid": line.pid,
        "command": line.command,
        "frontend": str(line.frontend),
        "policy": line.policy,
        "verdict": line.verdict,
        "reason": line.reason.label if line.reason is not None else None,
        "backend": str(line.backend) if line.backend else None,
    }


def as_text(line: Line) -> str:
    client = line.client or f"netns {line.client_netns}"
    who = f"{client} ({line.command or 'pid'} {line.pid})"
    where = f"redirected to {line.backend}" if line.reason is None else f"passed: {line.reason.label}"
    return f"{line.time}  {line.hook:8}  {who}  {line.frontend}  {line.policy or '-'}  {where}"


def lost_as_text(number: int) -> str:
    return f"{number} decisions are not shown: there were more in a second than the programs record"
