"""Checks of the agent, by its `/status`. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from actors.commands.finding import Finding, judge
from actors.commands.own_status import ACTOR_WORKS, CLOSER_ABSENT, CLOSER_FAILING, Status
from config.version import VERSION

_FAULTY_STATES = ("Failed", "Conflict", "Invalid")
_CLOSER_REMEDIES = {
    CLOSER_ABSENT: "run the container closer beside the agent, as k8s/install.yaml and the chart do, or set "
    "redirect.close_stale_sockets to false (feature.closeStaleSockets in the chart) if its work is not wanted",
    CLOSER_FAILING: "the closer's log and the detail say what is missing",
}


def agent_findings(status: Status) -> Iterator[Finding]:
    yield _version(status)
    yield _sources(status)
    yield _actors(status)
    yield _closer(status)
    yield _policies(status)


def _version(status: Status) -> Finding:
    version = status.get("version", "")
    faults = (
        [] if version == VERSION else [f"the agent is version {version or 'unknown'}, and this command is {VERSION}"]
    )
    return judge("agent", faults, f"version {version}, build {status.get('build', '')}", "roll out one version")


def _sources(status: Status) -> Finding:
    source = status["source"]
    faults = [f"{each['name']}: {each['message']}" for each in source.get("streams", ()) if each["message"]]
    if not source["synced"]:
        faults.append("not every source has been listed yet")
    remedy = "restore what is named: the right, the connection to the API server, or the CRD"
    return judge("sources", faults, f"{source['kind']}, synced", remedy)


def _actors(status: Status) -> Finding:
    faults = [f"{each['name']} is {each['state']}" for each in status["actors"] if each["state"] != ACTOR_WORKS]
    remedy = "the agent's log says why; the agent restarts what failed, and the kubelet restarts an agent that is stuck"
    return judge("actors", faults, f"{len(status['actors'])} running", remedy)


def _closer(status: Status) -> Finding:
    closer = status.get("closer", {"state": "absent", "message": "the agent does not know of a closer"})
    remedy = _CLOSER_REMEDIES.get(closer["state"], "")
    return judge("closer", [closer["message"]] if remedy else [], closer["message"] or closer["state"], remedy)


def _policies(status: Status) -> Finding:
    policies = status["policies"]
    faults = [
        f"{each['name']} is {each['state']}: {each['message']}" for each in policies if each["state"] in _FAULTY_STATES
    ]
    remedy = "change the policy as its message says; run.py explain says why one call is not redirected"
    return judge("policies", faults, f"{len(policies)}, none of them {' or '.join(_FAULTY_STATES)}", remedy)
