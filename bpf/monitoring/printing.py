"""A decision as one line, for people or for JSON. Pure."""

from __future__ import annotations

from bpf.monitoring.named_decision import NamedDecision


def document(decision: NamedDecision) -> dict[str, object]:
    """The JSON of `monitor -o json` (docs/commands.md)."""
    return {
        "time": decision.time,
        "hook": decision.hook,
        "client": decision.client,
        "client_netns": decision.client_netns,
        "pid": decision.pid,
        "command": decision.command,
        "frontend": str(decision.frontend),
        "policy": decision.policy,
        "verdict": decision.verdict,
        "reason": decision.reason.label if decision.reason is not None else None,
        "backend": str(decision.backend) if decision.backend else None,
    }


def as_text(decision: NamedDecision) -> str:
    client = decision.client or f"netns {decision.client_netns}"
    who = f"{client} ({decision.command or 'pid'} {decision.pid})"
    where = f"redirected to {decision.backend}" if decision.reason is None else f"passed: {decision.reason.label}"
    return f"{decision.time}  {decision.hook:8}  {who}  {decision.frontend}  {decision.policy or '-'}  {where}"


def lost_as_text(number: int) -> str:
    return f"{number} decisions are not shown: there were more in a second than the programs record"
