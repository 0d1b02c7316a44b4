"""`run.py status`: what the agent or controller of this machine says about itself, for people. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from actors.commands.own_status import ACTOR_WORKS, CLOSER_ABSENT, CLOSER_FAILING, Status
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
    for stream in status["source"].get("streams", ()):
        if stream["message"]:
            yield f"source {stream['name']}: {stream['message']}"
    datapath = status.get("datapath", {})
    if datapath.get("lease_withheld"):
        yield datapath["lease_withheld"]
    yield from datapath.get("warnings", ())
    for hook, names in datapath.get("programs_before_us", {}).items():
        yield f"{hook}: {', '.join(names)} runs before ours on {datapath['cgroup']}, and may translate an address first"
    closer: dict[str, Any] = status.get("closer", {})
    if closer.get("state") in (CLOSER_ABSENT, CLOSER_FAILING):
        yield closer["message"]
    if "metrics" in status:
        yield f"/metrics cannot be served: {status['metrics']['fault']}"
    for actor in status["actors"]:
        if actor["state"] != ACTOR_WORKS:
            yield f"actor {actor['name']} is {actor['state']}"
