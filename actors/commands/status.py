"""`run.py status`: what the agent or controller of this machine says about itself, for people. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from actors.commands.own_status import Status
from actors.commands.status_faults import (
    actor_faults,
    closer_faults,
    datapath_faults,
    metrics_faults,
    source_faults,
)
from bpf.inspecting.tables import table


def text(status: Status) -> str:
    lines = [*_head(status), *(f"wrong: {each}" for each in faults(status))]
    policies: list[dict[str, object]] = [
        {
            "policy": policy["name"],
            "state": policy["state"],
            "frontends": policy["frontends"] or policy.get("named_frontends", []),
            "backends": policy["backends"],
            "message": policy["message"],
        }
        for policy in status["policies"]
    ]
    return "\n".join(lines) + "\n\n" + (table(policies) if policies else "no policies\n")


def _head(status: Status) -> Iterator[str]:
    role = "controller" if "leader" in status else "agent"
    yield f"LocalRedirect {status.get('version', '')} {role} of node {status['node']}"
    if "build" in status:
        yield f"build: {status['build']}"
    source = status["source"]
    yield f"source: {source['kind']}, {'synced' if source['synced'] else 'not synced yet'}"
    if datapath := status.get("datapath"):
        yield (
            f"datapath: {len(datapath['hooks'])} hooks attached to {datapath['cgroup']}, "
            f"lease renewed {datapath['lease_age_seconds']:.1f} s ago"
        )
    if closer := status.get("closer"):
        yield f"closer: {closer['state']}"
    if leader := status.get("leader"):
        yield "leader: this one" if leader["leads"] else f"leader: {leader['holder'] or 'none yet'}"
    states = Counter(actor["state"] for actor in status["actors"])
    restarts = sum(actor["restarts"] for actor in status["actors"])
    counted = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    yield f"actors: {counted or 'none'}, {restarts} restarts"


def faults(status: Status) -> Iterator[str]:
    """What an operator should look at, one sentence each. A policy's state is not among them."""
    yield from source_faults(status)
    yield from datapath_faults(status)
    yield from closer_faults(status)
    yield from metrics_faults(status)
    yield from actor_faults(status)
