"""Generated policies, written to the real maps: nothing crashes, and an invalid policy has no rows (P9)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.resolving.agent_decision import AgentDecision
from actors.resolving.resolver_state import ResolverState
from actors.writing.map_tables import MapTables
from actors.writing.policy_write import PolicyWrite
from bpf.lifecycle.datapath import Datapath
from config.settings import DatapathSettings, RedirectSettings
from k8s.objects.policy import parse_policy
from tests.lab.lab import Lab
from tests.lab.rows import small_datapath
from tests.unit.k8s.generated_manifests import policies
from tests.unit.objects import SERVICE, address_spec, pod, policy

REDIRECT = RedirectSettings()
SIZES = DatapathSettings(max_frontends=8, max_backends=8, max_affinity=8)


@pytest.fixture(scope="module")
def datapath(lab: Lab) -> Iterator[Datapath]:
    """A build that is loaded and pinned, but not attached."""
    with small_datapath(lab, "property", max_frontends=8, max_backends=8, max_affinity=8) as made:
        yield made


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(policies, max_size=4))
def test_p9_only_valid_policies_have_rows_in_the_kernel(datapath: Datapath, raws: list[object]) -> None:
    known = [policy(address_spec(), name="valid"), *(parse_policy(raw, REDIRECT) for raw in raws)]
    state = ResolverState(datapath=SIZES, redirect=REDIRECT, decision=AgentDecision(REDIRECT))
    state.facts.upsert_pod(pod("cache-1", "10.0.0.5", "fd00::5"), 1)
    state.facts.upsert_service(SERVICE, 1)
    for each in known:
        state.facts.upsert_policy(each, 1)
    outcomes = state.decide_changes().outcomes
    maps = datapath.open_maps()
    tables = MapTables(maps)
    targets: dict[int, PolicyWrite | None] = dict.fromkeys(tables.policy_ids)
    for desired in (outcome.desired for outcome in outcomes):
        if desired.in_force:
            targets[desired.policy_id] = PolicyWrite(policy=desired)
    tables.apply(targets, known={each.policy_id for each in known})
    valid = {each.policy_id for each in known if each.spec is not None and each.spec.enabled}
    assert {row.policy_id for row in maps.frontend_rows()} <= valid
    assert known[0].policy_id in {row.policy_id for row in maps.frontend_rows()} or state.conflicts
    assert set(maps.policy_rows()) <= valid
    assert set(tables.frontends) == {row.frontend for row in maps.frontend_rows()}
    maps.close()
