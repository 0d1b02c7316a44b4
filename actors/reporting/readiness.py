"""What /readyz and /healthz report: the reasons why a process is not ready, or not healthy. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from actors.framework.messages import ActorReport, ActorState
from actors.messages.facts import SourceName
from actors.reporting.agent_state import AgentState
from actors.reporting.contact import Contact, problem_of

SILENCE_SECONDS = 10.0
"""The supervisor reports each second."""


def unready_reasons(state: AgentState, contacts: Mapping[SourceName, Contact], *, attaches: bool) -> list[str]:
    """Returns what is missing; nothing when the process is ready. `attaches`: it is an agent, which attaches
    programs."""
    missing = [f"source {source} is not synced" for source in SourceName if source not in state.synced]
    if not state.resolved:
        missing.append("policies are not resolved yet")
    if attaches and not state.applied.attached:
        missing.append("not all programs are attached")
    return missing + outdated_reasons(state, contacts)


def outdated_reasons(state: AgentState, contacts: Mapping[SourceName, Contact]) -> list[str]:
    """Returns why the decisions may be outdated. The answer changes with time even when no message arrives."""
    withheld = state.applied.lease_withheld
    problems = [
        problem_of(source, contact, at_once=bool(withheld) or source not in state.synced)
        for source, contact in contacts.items()
    ]
    return [each for each in (withheld, *problems) if each]


def unhealthy_reasons(actors: Iterable[ActorReport], silence_seconds: float) -> list[str]:
    """`silence_seconds` is the time since the supervisor last reported."""
    reasons = [f"{actor.name} is stuck" for actor in actors if actor.state == ActorState.STUCK]
    if silence_seconds > SILENCE_SECONDS:
        reasons.append(f"the supervisor has been silent for {silence_seconds:.0f} s")
    return reasons
