"""Checks of the agent, by its `/status`. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from actors.commands.finding import Finding, judge
from actors.commands.own_status import Status
from actors.commands.status_faults import (
    CLOSER_ABSENT,
    CLOSER_FAILING,
    FAULTY_STATES,
    actor_faults,
    closer_faults,
    metrics_faults,
    policy_faults,
    source_faults,
)
from config.version import VERSION

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
    yield _metrics(status)
    yield _policies(status)


def _version(status: Status) -> Finding:
    version = status.get("version", "")
    faults = (
        [] if version == VERSION else [f"the agent is version {version or 'unknown'}, and this command is {VERSION}"]
    )
    return judge("agent", faults, f"version {version}, build {status.get('build', '')}", "roll out one version")


def _sources(status: Status) -> Finding:
    remedy = "restore what is named: the right, the connection to the API server, or the CRD"
    return judge("sources", source_faults(status), f"{status['source']['kind']}, synced", remedy)


def _actors(status: Status) -> Finding:
    remedy = "the agent's log says why; the agent restarts what failed, and the kubelet restarts an agent that is stuck"
    return judge("actors", actor_faults(status), f"{len(status['actors'])} running", remedy)


def _closer(status: Status) -> Finding:
    closer = status.get("closer", {"state": "unknown to this agent", "message": ""})
    remedy = _CLOSER_REMEDIES.get(closer["state"], "")
    return judge("closer", closer_faults(status), closer["message"] or closer["state"], remedy)


def _metrics(status: Status) -> Finding:
    remedy = "free the port that is named, or set another metrics.port; the agent goes on trying"
    return judge("metrics", metrics_faults(status), "/metrics is served, or turned off", remedy)


def _policies(status: Status) -> Finding:
    remedy = "change the policy as its message says; run.py explain says why one call is not redirected"
    ok_detail = f"{len(status['policies'])}, none of them {' or '.join(FAULTY_STATES)}"
    return judge("policies", policy_faults(status), ok_detail, remedy)
