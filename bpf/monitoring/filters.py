"""Which decisions a user wants to see. Pure."""

from __future__ import annotations

from pathlib import Path

from bpf.explaining.call import ClientKind, ClientName
from bpf.monitoring.named_decision import HOST, NamedDecision


def is_chosen(decision: NamedDecision, policy: str | None, client: ClientName | None, mount: Path) -> bool:
    """Whether it is of this policy and this client; None stands for any. `mount` is where cgroup2 is mounted."""
    return (policy is None or decision.policy == policy) and (client is None or _is_from(decision, client, mount))


def _is_from(decision: NamedDecision, client: ClientName, mount: Path) -> bool:
    match client.kind:
        case ClientKind.HOST:
            return decision.client == HOST
        case ClientKind.PROCESS:
            return decision.pid == client.pid
        case ClientKind.POD:
            return decision.client == client.text
        case ClientKind.CGROUP:
            wanted = (client.path, mount / str(client.path).lstrip("/"))
            return decision.cgroup is not None and any(decision.cgroup.is_relative_to(each) for each in wanted)
