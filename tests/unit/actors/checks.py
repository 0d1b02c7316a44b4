"""Health checks of a policy's Pods, as ConflictResolver sends them to HealthChecker."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from actors.messages.checks import CheckedPod, PolicyChecks
from config.domain.checks import DnsProbe, HealthCheck
from config.domain.ids import NamespacedName, PolicyKey
from tests.unit.objects import KEY

CHECK = HealthCheck(
    probe=DnsProbe(name=".", type="NS"),
    port=53,
    interval=1.0,
    timeout=0.5,
    failure_threshold=2,
    success_threshold=1,
)


def checked(name: str = "a", **fields: str) -> CheckedPod:
    pod = CheckedPod(
        key=NamespacedName("kube-system", name), uid=f"uid-{name}", address=ip_address("10.1.0.1"), why_out_of_use=""
    )
    return replace(pod, **fields)  # type: ignore[arg-type]


def policy_checks(*pods: CheckedPod, key: PolicyKey = KEY, check: HealthCheck = CHECK) -> PolicyChecks:
    return PolicyChecks(key=key, check=check, pods=pods)
