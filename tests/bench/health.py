"""Health checks (P19): what checking 250 Pods each second costs, and how soon a Pod that hangs is out of use."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from contextlib import closing
from ipaddress import ip_address

from actors.health.targets import CHANGE_SECONDS
from bpf.maps.packing import pack_frontend
from bpf.maps.pinned_maps import PinnedMaps
from config.domain.addresses import Frontend, Protocol
from tests.bench.events import FakePod
from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.lab import VIP, Lab, PodProcess
from tests.lab.processes import run, wait_until
from tests.process_usage import cpu_seconds

PODS = 250
NETWORK = "10.79.0"
SECONDS = 20
HANGS = 20
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
        lab.write("pods", manifests.pod(pods[0]))  # type: ignore[arg-type]
        hangs = [
            ("hang to kernel, check by default", _hang_to_kernel(lab, agent, server, {"dns": {}})),
            ("hang to kernel, interval 100ms", _hang_to_kernel(lab, agent, server, {"dns": {}, "interval": "100ms"})),
        ]
    for name in ("pods", "policies"):
        lab.remove(name)
    text = ", ".join(f"{kind} {cost:.2%} ({failed:.0f} failed)" for kind, (cost, failed) in costs.items())
    return [(f"CPU of checking {PODS} Pods each second", f"{text} of one core; {without:.2%} without checks"), *hangs]


def _cost(lab: Lab, agent: Agent, check: dict[str, object]) -> tuple[float, float]:
    """The share of one core that the agent uses, and how many checks failed."""
    name = "checked-" + next(iter(check), "none")
    policy = manifests.policy(name)
    if check:
        policy["spec"]["backend"]["healthCheck"] = check
    lab.write("policies", policy)
    wait_until(lambda: agent.states() == {name: "Active"}, "active")
    if check:
        wait_until(lambda: _count(agent, name, "success") >= 2 * PODS, "every Pod was checked")
    assert agent.process
    before = cpu_seconds(agent.process.pid)
    time.sleep(SECONDS)  # the measurement itself
    cost = (cpu_seconds(agent.process.pid) - before) / SECONDS
    return cost, _count(agent, name, "failure") if check else 0.0


def _hang_to_kernel(lab: Lab, agent: Agent, server: PodProcess, check: dict[str, object]) -> str:
    """The time from SIGSTOP, at a random moment, until the frontend's row is gone from the kernel."""
    policy = manifests.policy("hangs")
    policy["spec"]["backend"]["healthCheck"] = check
    lab.write("policies", policy)
    key = pack_frontend(Frontend(ip_address(VIP), 53, Protocol.UDP))
    times = []
    with closing(PinnedMaps(lab.bpffs / agent.status()["build"] / "maps")) as maps:
        for _ in range(HANGS):
            wait_until(lambda: maps["frontends"].lookup(key) is not None, "the Pod is in use")
            # A result may be held back for CHANGE_SECONDS after the one before. A random part follows, so that the
            # server stops at any moment between two checks.
            time.sleep(CHANGE_SECONDS + random.random())
            began = time.perf_counter()
            os.kill(server.pid, signal.SIGSTOP)
            while maps["frontends"].lookup(key) is not None:
                time.sleep(0.001)
            times.append(time.perf_counter() - began)
            os.kill(server.pid, signal.SIGCONT)
    return f"p50 {statistics.median(times):.2f} s, at most {max(times):.2f} s of {HANGS} hangs"


def _count(agent: Agent, policy: str, result: str) -> float:
    line = f'localredirect_health_checks_total{{policy="{policy}",result="{result}"}}'
    return agent.metric(line) if line in agent.fetch("/metrics") else 0.0
