"""`run.py doctor`: checks this node and its agent, and says what is missing or wrong, each with its remedy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from actors.commands.agent_checks import agent_findings
from actors.commands.finding import Finding, judge
from actors.commands.node_checks import node_findings
from actors.commands.own_status import NoAnswer, fetch_status
from bpf.inspecting.tables import table
from config.settings import Settings
from k8s.commands.access import access_faults


def examine(settings: Settings) -> Iterator[Finding]:
    yield from node_findings(settings.datapath)
    faults, ok_detail = access_faults(settings)
    remedy = "restore the ClusterRole and its binding, the CRD, or the way to the API server"
    yield judge("api", faults, ok_detail, remedy)
    try:
        status = fetch_status(settings.health)
    except NoAnswer as error:
        remedy = "start the agent; if it runs, give this command its configuration (--config) and its network"
        yield Finding("agent", False, str(error), remedy)
        return
    yield from agent_findings(status)


def document(findings: Sequence[Finding]) -> list[dict[str, object]]:
    """The JSON of `doctor -o json` (docs/commands.md)."""
    return [finding._asdict() for finding in findings]


def text(findings: Sequence[Finding]) -> str:
    rows: list[dict[str, object]] = [
        {"check": each.check, "": "ok" if each.ok else "WRONG", "detail": each.detail} for each in findings
    ]
    wrong = [each for each in findings if not each.ok]
    remedies = [f"{each.check}: {each.remedy}" for each in wrong]
    end = ["", "what to do:", *remedies] if wrong else ["", "nothing is wrong"]
    return table(rows) + "\n".join(end)
