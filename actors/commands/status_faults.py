"""What is wrong according to a `/status`, part by part, one sentence each. Pure.

`run.py status` prints all of them but for the policies, which it shows in a table. `run.py doctor` adds a remedy to
those of the agent, and checks the data path by itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from actors.commands.own_status import Status
from actors.framework.messages import ActorState

CLOSER_ABSENT, CLOSER_FAILING = "absent", "failing"
"""The states of the closer that are faults."""
FAULTY_STATES = ("Failed", "Conflict", "Invalid")
"""The states of a policy in which somebody has to do something."""


def source_faults(status: Status) -> list[str]:
    source = status["source"]
    faults = [f"source {each['name']}: {each['message']}" for each in source.get("streams", ()) if each["message"]]
    return faults if source["synced"] else [*faults, "not every source has been listed yet"]


def datapath_faults(status: Status) -> Iterator[str]:
    datapath = status.get("datapath", {})
    if datapath.get("lease_withheld"):
        yield datapath["lease_withheld"]
    yield from datapath.get("warnings", ())
    for hook, names in datapath.get("programs_before_us", {}).items():
        yield f"{hook}: {', '.join(names)} runs before ours on {datapath['cgroup']}, and may translate an address first"


def closer_faults(status: Status) -> list[str]:
    closer = status.get("closer", {})
    return [closer["message"]] if closer.get("state") in (CLOSER_ABSENT, CLOSER_FAILING) else []


def metrics_faults(status: Status) -> list[str]:
    return [f"/metrics cannot be served: {status['metrics']['fault']}"] if "metrics" in status else []


def actor_faults(status: Status) -> list[str]:
    return [
        f"actor {each['name']} is {each['state']}" for each in status["actors"] if each["state"] != ActorState.RUNNING
    ]


def policy_faults(status: Status) -> list[str]:
    return [
        f"policy {each['name']} is {each['state']}: {each['message']}"
        for each in status["policies"]
        if each["state"] in FAULTY_STATES
    ]
