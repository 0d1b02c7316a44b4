"""What happens to a call, check by check. Pure.

CHECKS is the one place in Python that has the order of the programs: `redirect_call` in bpf/programs/hooks.c makes the
first check, and `decide` and `try_redirect` in bpf/programs/lib_redirect.c make the others. Before these, CHECKS has
those of what happens before the programs run. tests/kernel/test_explained.py compares the two orders.

A check asks a question; `yes`, `no` or `unknown` is the answer. If the answer keeps the call from being redirected, the
checks end, and `ends` says why. If an unknown answer might do so, they go on, and `unless` says what would change the
outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from bpf.cgroups.pod_cgroups import MAX_LEVELS
from bpf.explaining.facts import CallFacts
from bpf.maps.hashes import client_place
from bpf.maps.rows import FrontendFlag, FrontendRow, PassReason
from config.domain.addresses import Endpoint

NANOSECONDS = 1_000_000_000
NO_FRONTEND = "no_frontend"
NOT_ATTACHED = "not_attached"
NOT_COVERED = "not_covered"
AGENT = "agent"


class Verdict(StrEnum):
    """What becomes of the call. NO_MATCH: there is no row for it, so it does not go to a frontend."""

    REDIRECT = "redirect"
    PASS = "pass"  # noqa: S105  (not a password)
    NO_MATCH = "no_match"


class Result(StrEnum):
    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One check, and its answer."""

    check: str
    result: Result
    detail: str
    ends: str = ""
    """The reason why the call is left alone; "" when the checks go on."""
    why: str = ""
    """That reason in words, which name the field of the policy or the configuration. They follow the word "since"."""
    unless: str = ""
    """What would change the outcome."""
    chosen: Endpoint | None = None
    """The backend that the client has by affinity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    verdict: Verdict
    reason: str | None
    """None for a redirect."""
    backends: tuple[Endpoint, ...]
    """Those that the call may land on."""
    affinity: Endpoint | None
    steps: tuple[Step, ...]


def explain(facts: CallFacts) -> Explanation:
    """Checks in order, up to the first one that keeps the call from being redirected."""
    steps: list[Step] = []
    affinity: Endpoint | None = None
    for check in CHECKS:
        step = check(facts)
        steps.append(step)
        affinity = step.chosen or affinity
        if step.ends:
            # Without a row the call matches no frontend, whatever else would keep it from being redirected.
            reason = step.ends if facts.row is not None else NO_FRONTEND
            verdict = Verdict.NO_MATCH if reason == NO_FRONTEND else Verdict.PASS
            return Explanation(verdict=verdict, reason=reason, backends=(), affinity=None, steps=tuple(steps))
    return Explanation(
        verdict=Verdict.REDIRECT,
        reason=None,
        backends=(affinity,) if affinity else facts.backends,
        affinity=affinity,
        steps=tuple(steps),
    )


def _attached(facts: CallFacts) -> Step:
    hooks = " and ".join(facts.hooks)
    if not facts.attached.missing:
        detail = f"{hooks} on cgroup {_place(facts)}"
        return Step(check="attached", result=Result.YES, detail=detail)
    missing = " and ".join(facts.attached.missing)
    return Step(
        check="attached",
        result=Result.NO,
        detail=f"no program of ours is attached at {missing}",
        ends=NOT_ATTACHED,
        why=f"no program is attached at {missing} to datapath.cgroup; start the agent, or restart it",
    )


def _covered(facts: CallFacts) -> Step:
    client, cgroup = facts.client, facts.attached.cgroup_id
    if client.runtime_class:
        kernel = f"spec.runtimeClassName ({client.runtime_class}) gives the Pod a kernel of its own"
        return Step(
            check="covered",
            result=Result.UNKNOWN,
            detail=f"if {kernel}, the programs in the node's kernel see none of its calls",
            unless=f"{kernel}, as Kata and gVisor do",
        )
    if facts.attached.covers_all:
        return Step(check="covered", result=Result.YES, detail="the programs see every cgroup of the node")
    if not client.ancestors:
        return Step(
            check="covered",
            result=Result.UNKNOWN,
            detail=_unknown(facts, "the client's cgroup"),
            unless=f"the client is outside {_place(facts)} (datapath.cgroup)",
        )
    where = f"{client.cgroup} is {'' if cgroup in client.ancestors else 'not '}below {_place(facts)}"
    if cgroup in client.ancestors:
        return Step(check="covered", result=Result.YES, detail=where)
    why = (
        f"the client's cgroup {client.cgroup} is outside datapath.cgroup ({_place(facts)}), to which the programs are "
        "attached"
    )
    return Step(check="covered", result=Result.NO, detail=where, ends=NOT_COVERED, why=why)


def _first(facts: CallFacts) -> Step:
    found = {hook: names for hook, names in facts.attached.before.items() if hook in facts.hooks}
    if not found:
        return Step(check="first", result=Result.YES, detail="no program of other software runs before ours")
    named = ", ".join(f"{hook}: {', '.join(names)}" for hook, names in found.items())
    return Step(
        check="first",
        result=Result.NO,
        detail=f"{named} runs before ours",
        unless=f"a program of other software that runs before ours on datapath.cgroup or below it ({named}) translates "
        "the address",
    )


def _port(facts: CallFacts) -> Step:
    port = facts.frontend.port
    if facts.port_bit:
        return Step(check="port", result=Result.YES, detail=f"a frontend or backend has port {port}")
    return _no_frontend("port", f"no frontend or backend has port {port}")


def _address(facts: CallFacts) -> Step:
    if facts.frontend_bit:
        return Step(check="address", result=Result.YES, detail="the filter lets address, port and protocol through")
    return _no_frontend("address", f"no frontend or backend is {facts.frontend}")


def _frontend(facts: CallFacts) -> Step:
    if facts.row is not None:
        return Step(check="frontend", result=Result.YES, detail=f"a frontend of policy {facts.policy}")
    return _no_frontend("frontend", f"{facts.frontend} is not a frontend")


def _no_frontend(check: str, detail: str) -> Step:
    return Step(check=check, result=Result.NO, detail=detail, ends=NO_FRONTEND, why=detail)


def _agent(facts: CallFacts) -> Step:
    why = "the client is the agent itself, which no policy redirects (rule P17)"
    within, agent = facts.client.within, facts.agent_cgroup
    if within is None:
        detail = _unknown(facts, "the client's cgroup")
        return Step(check="agent", result=Result.UNKNOWN, detail=detail)
    if not agent or agent not in within:
        return Step(check="agent", result=Result.NO, detail="the client is not the agent")
    if len(within) == 1:
        return Step(check="agent", result=Result.YES, detail="the client is the agent", ends=AGENT, why=why)
    detail = "one of the client's containers is the agent"
    return Step(check="agent", result=Result.UNKNOWN, detail=detail, unless="the call is the agent's own (rule P17)")


def _lease(facts: CallFacts) -> Step:
    if not facts.lease_ns:
        return Step(check="lease", result=Result.NO, detail="datapath.lease_seconds is 0: there is no lease")
    seconds = facts.lease_ns / NANOSECONDS
    age = "was never renewed" if not facts.renewed_ns else f"was renewed {facts.lease_age_seconds:.1f} s ago"
    detail = f"the lease {age} and lasts {seconds:g} s"
    if facts.now_ns - facts.renewed_ns <= facts.lease_ns:
        return Step(check="lease", result=Result.NO, detail=detail)
    why = f"the agent's lease {age}, and datapath.lease_seconds is {seconds:g}: no agent watches the backends"
    return Step(check="lease", result=Result.YES, detail=detail, ends=PassReason.LEASE.label, why=why)


def _from_host(facts: CallFacts) -> Step:
    if not _row(facts).flags & FrontendFlag.NO_HOST:
        detail = "the policy redirects processes of the host as well"
        return Step(check="from_host", result=Result.NO, detail=detail)
    is_host = facts.client.is_host
    if is_host is None and facts.client.netns is not None:
        is_host = facts.client.netns == facts.host_netns
    if is_host is None:
        return Step(
            check="from_host",
            result=Result.UNKNOWN,
            detail=_unknown(facts, "the client's network namespace"),
            unless="the client is in the node's network namespace (spec.config.redirectFromHost is false)",
        )
    if not is_host:
        return Step(check="from_host", result=Result.NO, detail="the client is not in the node's network namespace")
    return Step(
        check="from_host",
        result=Result.YES,
        detail="the client is in the node's network namespace",
        ends=PassReason.FROM_HOST.label,
        why="the client is in the node's network namespace and spec.config.redirectFromHost is false",
    )


def _from_backend(facts: CallFacts) -> Step:
    row, client = _row(facts), facts.client
    if row.skip_from > row.skip_to:
        detail = "the policy exempts no Pods (spec.config.skipRedirectFromBackend), or selects none"
        return Step(check="from_backend", result=Result.NO, detail=detail)
    if client.ancestors is None:
        return Step(
            check="from_backend",
            result=Result.UNKNOWN,
            detail=_unknown(facts, "the client's cgroup"),
            unless="the client is a Pod that the policy selects (spec.config.skipRedirectFromBackend is true)",
        )
    if not facts.backend_cgroups.intersection(_looked_up(row, client.ancestors, client.top_level)):
        return Step(check="from_backend", result=Result.NO, detail="the client is no Pod that the policy selects")
    return Step(
        check="from_backend",
        result=Result.YES,
        detail="the client is a Pod that the policy selects",
        ends=PassReason.FROM_BACKEND.label,
        why="the client is a Pod that spec.backend.endpointSelector selects and "
        "spec.config.skipRedirectFromBackend is true",
    )


def _looked_up(row: FrontendRow, ancestors: tuple[int, ...], top_level: int | None) -> tuple[int, ...]:
    """The ancestors that the programs look for. If we don't know their levels, the agent did not know them either, and
    the row names all levels at which a Pod may be."""
    if top_level is None:
        return ancestors
    first = max(row.skip_from - top_level, 0)
    last = min(row.skip_to, row.skip_from + MAX_LEVELS - 1) - top_level
    return ancestors[first : last + 1] if last >= 0 else ()


def _percentage(facts: CallFacts) -> Step:
    percentage = _row(facts).percentage
    if percentage == 100:
        return Step(check="percentage", result=Result.YES, detail="the policy redirects all clients")
    netns = facts.host_netns if facts.client.is_host else facts.client.netns
    share = f"the {percentage} % of clients that the policy redirects (spec.config.percentage)"
    if netns is None:
        return Step(
            check="percentage",
            result=Result.UNKNOWN,
            detail=_unknown(facts, "the client's network namespace"),
            unless=f"the client is not among {share}",
        )
    if client_place(netns) < percentage:
        return Step(check="percentage", result=Result.YES, detail=f"the client is among {share}")
    why = f"the client is not among {share}"
    return Step(check="percentage", result=Result.NO, detail=why, ends=PassReason.PERCENTAGE.label, why=why)


def _bound(_facts: CallFacts) -> Step:
    detail = "depends on the socket: one that is bound to a device is left alone; this explains one that is not"
    return Step(check="bound", result=Result.UNKNOWN, detail=detail)


def _socket(_facts: CallFacts) -> Step:
    detail = (
        "depends on the socket: one that was redirected before keeps its backend (rule P16); this explains a new one"
    )
    return Step(check="socket", result=Result.UNKNOWN, detail=detail)


def _affinity(facts: CallFacts) -> Step:
    row, held = _row(facts), facts.affinity
    if not row.affinity_seconds:
        return Step(check="affinity", result=Result.NO, detail="the policy has no session affinity")
    nothing = "the client has no backend yet, and keeps the one that it gets"
    if facts.client.netns is None and facts.affinity_clients:
        detail = "whether the client has a backend is unknown, since " + _unknown(facts, "its network namespace")
        return Step(check="affinity", result=Result.UNKNOWN, detail=detail)
    if held is None or not held.is_fresh(row.affinity_seconds, facts.now_ns):
        return Step(check="affinity", result=Result.NO, detail=nothing)
    if held.generation != row.generation and not facts.affinity_in_use:
        detail = f"the client had {held.backend}, which is out of use"
        return Step(check="affinity", result=Result.NO, detail=detail)
    detail = f"the client keeps {held.backend} (spec.config.sessionAffinity)"
    return Step(check="affinity", result=Result.YES, detail=detail, chosen=held.backend)


def _backend(facts: CallFacts) -> Step:
    names = ", ".join(map(str, facts.backends))
    detail = names if len(facts.backends) == 1 else f"one of {names}"
    return Step(check="backend", result=Result.YES, detail=f"the frontend leads to {detail}")


def _limit(facts: CallFacts) -> Step:
    limit = _row(facts).limit
    if not limit:
        return Step(check="limit", result=Result.NO, detail="the policy has no limit")
    why = f"the limit of {limit} redirects a second (spec.config.redirectQosLimit) is reached in this second"
    if facts.window is None:
        detail = "the policy's calls cannot be counted, so they are left alone"
        return Step(check="limit", result=Result.YES, detail=detail, ends=PassReason.QOS.label, why=why)
    calls = facts.window.calls_seen_at(facts.now_ns // NANOSECONDS)
    if calls < limit:
        detail = f"{calls} of {limit} redirects of this second are used"
        return Step(check="limit", result=Result.NO, detail=detail)
    detail = f"all {limit} redirects of this second are used"
    return Step(check="limit", result=Result.YES, detail=detail, ends=PassReason.QOS.label, why=why)


def _shadow(facts: CallFacts) -> Step:
    if not _row(facts).flags & FrontendFlag.SHADOW:
        return Step(check="shadow", result=Result.NO, detail="the policy is in mode Redirect")
    why = "spec.config.mode is Shadow; in mode Redirect it would redirect the call"
    return Step(
        check="shadow", result=Result.YES, detail="the policy is in mode Shadow", ends=PassReason.SHADOW.label, why=why
    )


def _row(facts: CallFacts) -> FrontendRow:
    assert facts.row is not None  # otherwise the check `frontend` was the last one
    return facts.row


def _place(facts: CallFacts) -> str:
    return facts.attached.cgroup or f"with the id {facts.attached.cgroup_id}"


def _unknown(facts: CallFacts, what: str) -> str:
    return f"{what} is unknown" + (f": {facts.client.remark}" if facts.client.remark else "")


CHECKS: tuple[Callable[[CallFacts], Step], ...] = (
    # before our programs
    _attached,
    _covered,
    _first,
    # redirect_call and decide
    _port,
    _address,
    # try_redirect
    _frontend,
    _agent,
    _lease,
    _from_host,
    _from_backend,
    _percentage,
    _bound,
    _socket,
    _affinity,
    _backend,
    _limit,
    _shadow,
)
