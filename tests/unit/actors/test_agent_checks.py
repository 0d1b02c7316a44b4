"""What doctor makes of an agent's /status; tests/kernel/test_doctor.py asks a real one."""

from __future__ import annotations

from typing import Any

import pytest

from actors.commands.agent_checks import agent_findings
from config.version import VERSION

HEALTHY: dict[str, Any] = {
    "version": VERSION,
    "build": "abc",
    "source": {"kind": "kubernetes", "synced": True, "streams": [{"name": "policies", "message": ""}]},
    "closer": {"state": "running", "message": ""},
    "actors": [{"name": "MapWriter", "state": "running"}],
    "policies": [{"name": "dns", "state": "NoBackend", "message": "no Pod"}],
}


def test_an_agent_that_works_passes_every_check() -> None:
    assert [(each.check, each.ok, each.remedy) for each in agent_findings(HEALTHY)] == [
        ("agent", True, ""),
        ("sources", True, ""),
        ("actors", True, ""),
        ("closer", True, ""),
        ("metrics", True, ""),
        ("policies", True, ""),
    ]


@pytest.mark.parametrize(
    ("check", "change", "detail"),
    [
        ("agent", {"version": "0.1.0"}, f"the agent is version 0.1.0, and this command is {VERSION}"),
        (
            "sources",
            {"source": {"kind": "kubernetes", "synced": False, "streams": [{"name": "policies", "message": "403"}]}},
            "source policies: 403; not every source has been listed yet",
        ),
        ("actors", {"actors": [{"name": "MapWriter", "state": "stuck"}]}, "actor MapWriter is stuck"),
        ("closer", {"closer": {"state": "absent", "message": "the closer does not run"}}, "the closer does not run"),
        ("closer", {"closer": {"state": "failing", "message": "it lacks rights"}}, "it lacks rights"),
        ("metrics", {"metrics": {"fault": "port 5811 is taken"}}, "/metrics cannot be served: port 5811 is taken"),
        (
            "policies",
            {"policies": [{"name": "dns", "state": "Conflict", "message": "held by old"}]},
            "policy dns is Conflict: held by old",
        ),
    ],
)
def test_what_is_wrong_comes_with_a_remedy(check: str, change: dict[str, Any], detail: str) -> None:
    (wrong,) = (each for each in agent_findings(HEALTHY | change) if not each.ok)
    assert (wrong.check, wrong.detail) == (check, detail)
    assert wrong.remedy


def test_a_closer_that_is_turned_off_is_no_fault() -> None:
    status = HEALTHY | {"closer": {"state": "disabled", "message": "redirect.close_stale_sockets is false"}}
    assert all(each.ok for each in agent_findings(status))
