"""Why a call finds no frontend. tests/kernel/test_reasons.py has most cases, with a real agent."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from actors.commands.missing_row import candidates, why_no_row
from bpf.explaining.facts import Neighbour
from config.domain.addresses import Frontend, Protocol

DNS = Frontend(ip_address("fd00::10"), 53, Protocol.UDP)


def policy(state: str, *named: str, name: str = "dns", message: str = "some reason", **fields: Any) -> dict[str, Any]:
    return {"name": name, "state": state, "message": message, "named_frontends": named, "frontends": [], **fields}


@pytest.mark.parametrize(
    ("policies", "says"),
    [
        pytest.param(
            [policy("Active", "[fd00::10]:53/UDP")],
            "policy dns names it in spec.frontend and is Active, but datapath.ipv6 is false on this node",
            id="family turned off",
        ),
        pytest.param(
            [policy("Invalid", name="wrong", message="spec.x: is wrong"), policy("Disabled", "[fd00::10]:53/UDP")],
            "policy dns names it in spec.frontend and is Disabled, since some reason",
            id="the policy that names it comes before one that may mean it",
        ),
        pytest.param(
            [policy("Conflict", "[fd00::10]:53/UDP"), policy("NoBackend", "[fd00::10]:53/UDP", name="winner")],
            "policy winner names it in spec.frontend and is NoBackend, since spec.backend gives no usable Pod: "
            "some reason",
            id="the winner of a conflict says more than the loser",
        ),
        pytest.param(
            [policy("Disabled", "[fd00::10]:54/UDP", "[fd00::11]:53/UDP")],
            "policy dns has this address with 54/UDP only, and spec.frontend (toPorts) does not give it 53/UDP",
            id="another port of a policy without rows",
        ),
        pytest.param(
            [policy("NoFrontend", message="Service default/dns does not exist")],
            "policy dns is NoFrontend, so it is not known whether it has this frontend: "
            "Service default/dns does not exist",
            id="no Service",
        ),
        pytest.param([], "no policy names it in spec.frontend", id="no policy"),
    ],
)
def test_the_policy_that_explains_most_is_named(policies: list[dict[str, Any]], says: str) -> None:
    assert why_no_row(DNS, policies, "", []) == says


def test_without_an_agent_a_row_with_another_protocol_still_tells() -> None:
    near = [Neighbour(DNS._replace(protocol=Protocol.TCP), "dns")]
    assert why_no_row(DNS, None, "no agent answers", near).startswith("policy dns has this address with 53/TCP only")
    assert why_no_row(DNS, None, "no agent answers", []).startswith("no agent answers, so it is not known")


def test_an_agent_of_an_earlier_version_names_no_frontends() -> None:
    old = policy("Active")
    del old["named_frontends"]
    assert candidates(DNS, [old]) == []
