"""What `run.py status` prints; tests/kernel/test_commands.py asks a real agent."""

from __future__ import annotations

from typing import Any

import pytest

from actors.commands.status import faults, text

STREAM = {"name": "policies", "state": "ok", "silent_seconds": 1.0, "trouble_seconds": 0.0, "message": ""}
AGENT: dict[str, Any] = {
    "node": "node-a",
    "version": "0.3.0",
    "build": "abc-1-2-3",
    "source": {"kind": "kubernetes", "synced": True, "streams": [STREAM]},
    "datapath": {
        "cgroup": "/sys/fs/cgroup",
        "hooks": ["connect4", "connect6"],
        "lease_age_seconds": 0.42,
        "lease_withheld": "",
        "programs_before_us": {},
        "warnings": [],
    },
    "closer": {"state": "running", "message": ""},
    "actors": [{"name": "MapWriter", "state": "running", "restarts": 1, "mailbox": 0}],
    "policies": [
        {
            "name": "dns",
            "service_id": 7,
            "state": "Active",
            "reason": "Active",
            "message": "1 frontend redirected to 1 local Pod",
            "frontends": ["10.96.0.10:53"],
            "named_frontends": ["10.96.0.10:53/UDP"],
            "backends": ["10.0.0.5:53"],
        }
    ],
}


def test_an_agent_that_works_is_shown_without_a_fault() -> None:
    assert text(AGENT).splitlines() == [
        "LocalRedirect 0.3.0 agent of node node-a",
        "build: abc-1-2-3",
        "source: kubernetes, synced",
        "datapath: 2 hooks attached to /sys/fs/cgroup, lease renewed 0.4 s ago",
        "closer: running",
        "actors: 1 running, 1 restarts",
        "",
        "POLICY  STATE   FRONTENDS      BACKENDS     MESSAGE",
        "dns     Active  10.96.0.10:53  10.0.0.5:53  1 frontend redirected to 1 local Pod",
    ]


def test_a_controller_says_whether_it_leads() -> None:
    controller = {key: value for key, value in AGENT.items() if key not in ("build", "datapath", "closer")}
    controller |= {"leader": {"leads": False, "holder": "pod-b"}, "policies": []}
    assert text(controller).splitlines() == [
        "LocalRedirect 0.3.0 controller of node node-a",
        "source: kubernetes, synced",
        "leader: pod-b",
        "actors: 1 running, 1 restarts",
        "",
        "no policies",
    ]


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"datapath": {"lease_withheld": "the lease ran out"}}, "the lease ran out"),
        ({"datapath": {"warnings": ["no kubepods"]}}, "no kubepods"),
        ({"datapath": {"programs_before_us": {"connect4": ["program 9"]}}}, "connect4: program 9 runs before ours"),
        ({"closer": {"state": "absent", "message": "the closer does not run"}}, "the closer does not run"),
        ({"metrics": {"fault": "port 5811 is taken"}}, "/metrics cannot be served: port 5811 is taken"),
        ({"source": {"streams": [STREAM | {"message": "403 Forbidden"}]}}, "source policies: 403 Forbidden"),
    ],
)
def test_what_is_wrong_has_a_line_of_its_own(part: dict[str, Any], says: str) -> None:
    ((key, change),) = part.items()
    status = AGENT | {key: {**AGENT.get(key, {}), **change}}
    (fault,) = faults(status)
    assert fault.startswith(says)
    assert f"wrong: {fault}" in text(status).splitlines()


def test_a_closer_that_is_turned_off_is_not_wrong() -> None:
    assert list(faults(AGENT | {"closer": {"state": "disabled", "message": "it is false"}})) == []
