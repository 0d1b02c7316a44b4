"""Why a call finds no frontend, from what the agent reports about the policies that could have it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from bpf.explaining.facts import Neighbour
from config.domain.addresses import Endpoint, Frontend, Protocol

_KEYS = {4: "datapath.ipv4", 6: "datapath.ipv6"}
_MOST_TELLING = ("Failed", "Active", "NoBackend", "NodeNotSelected", "Conflict", "Disabled")
"""States of policies that name the frontend, the most informative ones first."""
_FRONTENDS_UNKNOWN = ("Invalid", "NoFrontend")
"""States in which it is not known which frontends the policy has."""


class Candidate(NamedTuple):
    """A policy that names the frontend, or may mean it."""

    policy: str
    state: str
    message: str

    def document(self) -> dict[str, str]:
        return self._asdict()


def candidates(frontend: Frontend, policies: Iterable[dict[str, Any]]) -> list[Candidate]:
    """`policies` are those of /status. The policies that name the frontend come first in the result."""
    known = list(policies)
    naming = [each for each in known if str(frontend) in each.get("named_frontends", ())]
    last = len(_MOST_TELLING)
    naming.sort(key=lambda each: _MOST_TELLING.index(each["state"]) if each["state"] in _MOST_TELLING else last)
    possible = [each for each in known if each["state"] in _FRONTENDS_UNKNOWN and each not in naming]
    return [Candidate(each["name"], each["state"], _reason(frontend, each)) for each in [*naming, *possible]]


def why_no_row(
    frontend: Frontend, policies: Sequence[dict[str, Any]] | None, silence: str, neighbours: Iterable[Neighbour]
) -> str:
    """Returns what follows "10.96.0.10:53/UDP is not a frontend: " in the summary. `policies` is None when no agent
    answers; then `silence` says why."""
    found = candidates(frontend, policies or ())
    if found and found[0].state not in _FRONTENDS_UNKNOWN:
        return f"policy {found[0].policy} names it in spec.frontend and is {found[0].state}, {found[0].message}"
    near = [*neighbours, *_named_neighbours(frontend, policies or ())]
    if near:
        return _other_port(frontend, near)
    if found:
        policy, state, message = found[0]
        return f"policy {policy} is {state}, so it is not known whether it has this frontend: {message}"
    if policies is None:
        return f"{silence}, so it is not known whether a policy names it in spec.frontend; start the agent"
    return "no policy names it in spec.frontend"


def _reason(frontend: Frontend, policy: dict[str, Any]) -> str:
    family = frontend.address.version
    match policy["state"]:
        case "Active" if str(Endpoint(frontend.address, frontend.port)) not in policy["frontends"]:
            return f"but {_KEYS[family]} is false on this node"
        case "Active":
            return (
                f"but none of the Pods that spec.backend selects has an IPv{family} address (status.podIPs): "
                f"{policy['message']}"
            )
        case "NoBackend":
            return f"since spec.backend gives no usable Pod: {policy['message']}"
        case "Failed":
            return f"since the kernel did not take it: {policy['message']}"
        case "Invalid" | "NoFrontend":
            return str(policy["message"])
        case _:
            return f"since {policy['message']}"


def _named_neighbours(frontend: Frontend, policies: Iterable[dict[str, Any]]) -> list[Neighbour]:
    """Frontends with the same address that have no row either."""
    found = []
    for policy in policies:
        for named in policy.get("named_frontends", ()):
            endpoint, _, protocol = named.rpartition("/")
            port = endpoint.rpartition(":")[2]
            other = frontend._replace(port=int(port), protocol=Protocol(protocol))
            if str(other) == named:
                found.append(Neighbour(other, policy["name"]))
    return found


def _other_port(frontend: Frontend, near: Sequence[Neighbour]) -> str:
    policy = next((each.policy for each in near if each.frontend.port == frontend.port), near[0].policy)
    ports = sorted({(each.frontend.port, each.frontend.protocol) for each in near if each.policy == policy})
    named = ", ".join(f"{port}/{protocol}" for port, protocol in ports)
    return (
        f"policy {policy} has this address with {named} only, and spec.frontend (toPorts) does not give it "
        f"{frontend.port}/{frontend.protocol}"
    )
