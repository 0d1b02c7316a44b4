"""A policy's verdict and its status, for the tests of what the controller writes."""

from __future__ import annotations

from dataclasses import replace

from actors.controller.write_plan import status_of
from actors.messages.verdicts import Acceptance, PolicyVerdict
from config.domain.ids import PolicyKey, PolicyKind
from k8s.objects.model import PolicyStatus

KEY = PolicyKey(PolicyKind.LOCAL_REDIRECT, "dns")
BEFORE, NOW = "2026-01-01T00:00:00Z", "2026-01-31T12:00:00Z"
VERDICT = PolicyVerdict(
    key=KEY,
    uid="u-1",
    generation=3,
    reason=Acceptance.ACCEPTED,
    message="fine",
    frontend="kube-system/dns",
    frontends=("10.96.0.10:53/UDP",),
    nodes_ready=1,
    nodes_selected=5,
)
HELD = status_of(VERDICT, PolicyStatus(), BEFORE)
"""The status when there is nothing to write."""
LOST = replace(VERDICT, reason=Acceptance.CONFLICT, message="lost", frontends=(), nodes_ready=0)
