"""`run.py explain`: finds out from the installed rows what the kernel does with a call, and why.

While the agent is down, it still says what the kernel does, but not why a policy has no row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from actors.commands.missing_row import candidates, why_no_row
from actors.commands.own_status import NoAnswer, fetch_status
from bpf.cgroups.hierarchy import find_cgroup
from bpf.explaining.call import Call, ClientKind, ClientName, parse_call, parse_client
from bpf.explaining.checks import AGENT, NOT_ATTACHED, NOT_COVERED, Explanation, Verdict, explain
from bpf.explaining.clients import KnownPod, find_client, with_namespace
from bpf.explaining.facts import CallFacts, Client, Neighbour
from bpf.explaining.installed import calling_namespaces, neighbours, read_attached, read_facts
from bpf.inspecting.tables import table
from bpf.lifecycle.opened_maps import opened_maps
from config.domain.ids import NamespacedName
from config.settings import Settings
from k8s.commands.pods import SourceUnreadable, find_pod

_NOT_THE_POLICY = (AGENT, NOT_ATTACHED, NOT_COVERED)
"""Reasons that do not depend on the policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedCall:
    call: Call
    client: Client
    facts: CallFacts
    explanation: Explanation
    installed: bool
    """Whether the kernel holds anything of ours."""
    neighbours: tuple[Neighbour, ...]
    policies: list[dict[str, Any]] | None
    """The policies of /status; None when no agent answers."""
    silence: str
    """Why no agent answers; "" when one does."""


def answer(client_text: str, call_text: str, settings: Settings) -> ExplainedCall:
    """Raises WrongUsage, NoSuchPod and DatapathError."""
    call, name = parse_call(call_text), parse_client(client_text)
    pod, remark = _pod(name, settings)
    policies, silence = _policies(settings)
    with opened_maps(settings.datapath.bpffs) as maps:
        host_netns = maps.config().host_netns if maps else 0
        client = find_client(name, host_netns, pod, remark)
        if maps and client.netns is None:
            client = with_namespace(client, calling_namespaces(maps), host_netns)
        attached = read_attached(settings.datapath.bpffs, call.hooks, client)
        if maps is None:
            facts = CallFacts(frontend=call.frontend, hooks=call.hooks, attached=attached, client=client)
        else:
            facts = read_facts(maps, call, client, attached)
        near = tuple(neighbours(maps, call.frontend)) if maps and facts.row is None else ()
    return ExplainedCall(
        call=call,
        client=client,
        facts=facts,
        explanation=explain(facts),
        installed=maps is not None,
        neighbours=near,
        policies=policies,
        silence=silence,
    )


def _pod(name: ClientName, settings: Settings) -> tuple[KnownPod | None, str]:
    """Returns the Pod, or None and why it is not known."""
    if name.kind != ClientKind.POD:
        return None, ""
    try:
        pod = find_pod(NamespacedName(name.namespace, name.name), settings)
    except SourceUnreadable as error:
        return None, f"{error}; name the client as cgroup:PATH"
    below = find_cgroup(settings.datapath.cgroup)
    known = KnownPod(
        uid=pod.uid,
        config_hash=pod.config_hash,
        host_network=pod.host_network,
        runtime_class=pod.runtime_class,
        below=below,
    )
    return known, ""


def _policies(settings: Settings) -> tuple[list[dict[str, Any]] | None, str]:
    try:
        return list(fetch_status(settings.health)["policies"]), ""
    except NoAnswer as error:
        return None, str(error)


def document(found: ExplainedCall) -> dict[str, object]:
    """The JSON of `explain -o json` (docs/commands.md)."""
    explanation = found.explanation
    possible = candidates(found.call.frontend, found.policies or ()) if found.facts.row is None else ()
    return {
        "from": found.client.name,
        "to": str(found.call),
        "verdict": str(explanation.verdict),
        "policy": found.facts.policy if found.facts.row else None,
        "reason": explanation.reason,
        "backends": [str(each) for each in explanation.backends],
        "affinity": str(explanation.affinity) if explanation.affinity else None,
        "steps": [
            {"check": step.check, "result": str(step.result), "detail": step.detail} for step in explanation.steps
        ],
        "candidates": [each.document() for each in possible],
        "summary": summary(found),
    }


def text(found: ExplainedCall) -> str:
    steps: list[dict[str, object]] = [
        {"check": step.check, "result": str(step.result), "detail": step.detail} for step in found.explanation.steps
    ]
    place = f" (cgroup {found.client.cgroup})" if found.client.cgroup else ""
    return f"from {found.client.name}{place}\nto {found.call}\n\n{table(steps)}\n{summary(found)}"


def summary(found: ExplainedCall) -> str:
    """Returns one sentence that says what happens, and which policy and field cause it."""
    steps, policy = found.explanation.steps, found.facts.policy
    why = steps[-1].why
    doubts = [step.unless for step in steps if step.unless]
    unless = f", unless {', or '.join(doubts)}" if doubts else ""
    if found.explanation.verdict == Verdict.NO_MATCH:
        reason = why_no_row(found.call.frontend, found.policies, found.silence, found.neighbours)
        empty = "" if found.installed else "nothing of ours is installed in the kernel, and "
        return f"the call takes the normal way, since {empty}{found.call.frontend} is not a frontend: {reason}"
    if found.explanation.verdict == Verdict.REDIRECT:
        return _redirect(found) + unless + _left_behind(found)
    if found.explanation.reason in _NOT_THE_POLICY:
        return f"the call takes the normal way although policy {policy} has this frontend (spec.frontend), since {why}"
    return f"policy {policy} leaves the call alone, since {why}{unless}"


def _redirect(found: ExplainedCall) -> str:
    policy, backends = found.facts.policy, found.explanation.backends
    if found.explanation.affinity:
        kept = f"{found.explanation.affinity}, which the client keeps by spec.config.sessionAffinity"
        return f"policy {policy} redirects the call to {kept}"
    names = ", ".join(map(str, backends))
    which = names if len(backends) == 1 else f"one of {names}"
    return f"policy {policy} redirects the call to {which}, as spec.backend says"


def _left_behind(found: ExplainedCall) -> str:
    """What the answer adds when no agent maintains the rows; "" when one does."""
    if not found.silence:
        return ""
    facts = found.facts
    if not facts.lease_ns:
        never_ends = "datapath.lease_seconds is 0, so the row stays without an agent"
        return f"; {found.silence}, so no agent watches the backend, and {never_ends}"
    left = max(facts.lease_ns / 1e9 - facts.lease_age_seconds, 0.0)
    return (
        f"; {found.silence}, so a stopped agent left this row; its lease ends in {left:.0f} s (datapath.lease_seconds)"
    )
