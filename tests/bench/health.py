"""What health checks cost the agent (P19): 250 Pods, each asked once a second."""

from __future__ import annotations

import time

from tests.bench.events import FakePod, cpu_seconds
from tests.lab import manifests
from tests.lab.lab import Agent, Lab, run, wait_until

PODS = 250
NETWORK = "10.79.0"
SECONDS = 20
KINDS: dict[str, dict[str, object]] = {"dns": {"dns": {}}, "tcp": {"tcp": {}, "port": 80}}


def measure(lab: Lab) -> list[tuple[str, str]]:
    addresses = [f"{NETWORK}.{number + 1}" for number in range(PODS)]
    server = lab.pod("checked")
    for address in addresses:
        run("ip", "-n", server.netns, "addr", "add", f"{address}/32", "dev", "lo")
    run("ip", "-n", lab.node, "route", "add", f"{NETWORK}.0/24", "via", server.address)
    server.do("serve_dns", addresses=addresses, port=53)
    server.do("serve", address="0.0.0.0", port=80, protocol="TCP")
    pods = [FakePod(f"checked{number}", address, f"fd79::{number + 1:x}") for number, address in enumerate(addresses)]
    lab.write("pods", *(manifests.pod(each) for each in pods))  # type: ignore[arg-type]
    with lab.running_agent(log__level="warning") as agent:
        without, _ = _cost(lab, agent, {})
        costs = {kind: _cost(lab, agent, check) for kind, check in KINDS.items()}
    for name in ("pods", "policies"):
        lab.remove(name)
    text = ", ".join(f"{kind} {cost:.2%} ({failed:.0f} failed)" for kind, (cost, failed) in costs.items())
    return [(f"CPU of checking {PODS} Pods each second", f"{text} of one core; {without:.2%} without checks")]


def _cost(lab: Lab, agent: Agent, check: dict[str, object]) -> tuple[float, float]:
    """Of one core, and how many checks failed."""
    name = "checked-" + next(iter(check), "none")
    policy = manifests.policy(name)
    if check:
        policy["spec"]["backend"]["healthCheck"] = check
    lab.write("policies", policy)
    wait_until(lambda: agent.states() == {name: "Active"}, "active")
    if check:
        wait_until(lambda: _count(agent, name, "success") >= 2 * PODS, "every Pod was checked")
    before = cpu_seconds(agent)
    time.sleep(SECONDS)  # the measurement itself
    cost = (cpu_seconds(agent) - before) / SECONDS
    return cost, _count(agent, name, "failure") if check else 0.0


def _count(agent: Agent, policy: str, result: str) -> float:
    line = f'localredirect_health_checks_total{{policy="{policy}",result="{result}"}}'
    return agent.metric(line) if line in agent.fetch("/metrics") else 0.0
