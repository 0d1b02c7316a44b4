"""Faults of a way's server, or of something that it needs. Each function returns when the fault is over, which may be
before the way has recovered.

A fault without an end of its own takes a fixed time, which is the same for all ways.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.losses.ways import NAMESPACE, KubeProxy, NodeLocal, Ours, Way
from tests.cluster import dns, faults, install_yaml, installation
from tests.cluster.leftovers import hierarchies
from tests.lab.processes import wait_until

FAULT_SECONDS = 10.0
FAST_CHECK = {"spec": {"backend": {"healthCheck": {"dns": {}, "interval": "100ms", "timeout": "100ms"}}}}
_ALLOCATE = "kept = []\nwhile True: kept.append(b'x' * (1 << 20))"


@dataclass(frozen=True)
class Fault:
    name: str
    heading: str
    happen: Callable[[Way], None]
    ways: tuple[type[Way], ...] = (KubeProxy, NodeLocal, Ours)
    """The ways that it applies to."""


def deleted(way: Way) -> None:
    faults.delete(way.node, way.server(), NAMESPACE)


def evicted(way: Way) -> None:
    faults.evict(way.node, way.server(), NAMESPACE)


def rolled_out(way: Way) -> None:
    way.restart()


def not_ready(way: Way) -> None:
    with faults.probe_blocked(way.process(way.server())):
        time.sleep(FAULT_SECONDS)


def killed(way: Way) -> None:
    faults.kill(way.process(way.server()))
    time.sleep(FAULT_SECONDS)


def out_of_memory(way: Way) -> None:
    """A process allocates up to the container's limit. The server has the highest score, so the kernel kills it."""
    process = way.process(way.server())
    Path(f"/proc/{process}/oom_score_adj").write_text("1000")
    join_and_allocate = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(_memory_cgroup(process) / "cgroup.procs")]
    with subprocess.Popen([*join_and_allocate, sys.executable, "-c", _ALLOCATE]) as allocator:
        wait_until(lambda: not Path(f"/proc/{process}/exe").exists(), "the kernel has killed the server", 30)
        allocator.kill()
    time.sleep(FAULT_SECONDS)


def _memory_cgroup(process: int) -> Path:
    """The process's cgroup in the hierarchy that limits memory, which is one of v1 on a hybrid machine."""
    for line in Path(f"/proc/{process}/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            (hierarchy,) = (each for each in hierarchies() if each.name == "memory")
            return hierarchy / path.lstrip("/")
        if number == "0":
            unified = hierarchies()[0] / path.lstrip("/")
    return unified


def hanging(way: Way) -> None:
    with faults.hanging([way.process(way.server())]):
        time.sleep(FAULT_SECONDS)


def hanging_with_a_fast_check(way: Way) -> None:
    way.node.kubectl("patch", "lr", dns.POLICY, "--type=merge", "-p", json.dumps(FAST_CHECK))
    try:
        assert way.installation
        way.installation.wait_state(dns.POLICY, "Active")
        time.sleep(1.0)  # until the agent has had the first results
        hanging(way)
    finally:
        way.node.apply((dns.EXAMPLE / "policy.yaml").read_text())


def upstream_hanging(way: Way) -> None:
    """All Pods of the cluster's DNS hang."""
    pods = KubeProxy(way.bed).pods()
    with faults.hanging([way.node.process_of(pod["metadata"]["name"], "coredns", namespace=NAMESPACE) for pod in pods]):
        time.sleep(FAULT_SECONDS)


def agent_rolled_out(way: Way) -> None:
    way.node.kubectl("rollout", "restart", f"daemonset/{installation.DAEMONSET}", "-n", install_yaml.NAMESPACE)
    assert way.installation
    way.installation.wait_ready()


def agent_killed(way: Way) -> None:
    assert way.installation
    faults.kill(way.installation.agent_process())
    time.sleep(FAULT_SECONDS)


def api_server_away(way: Way) -> None:
    way.node.stop_apiserver()
    time.sleep(FAULT_SECONDS)
    way.node.start_apiserver()
    way.node.restart_controllers()


def killed_while_the_api_server_is_away(way: Way) -> None:
    process = way.process(way.server())
    way.node.stop_apiserver()
    time.sleep(1.0)
    faults.kill(process)
    time.sleep(FAULT_SECONDS)
    way.node.start_apiserver()
    way.node.restart_controllers()


ORDERLY = (
    Fault("deleted", "deleted", deleted),
    Fault("rolled-out", "rolled out", rolled_out),
    Fault("evicted", "evicted (node drained)", evicted),
    Fault("not-ready", f"not Ready for {FAULT_SECONDS:.0f} s", not_ready, (KubeProxy, Ours)),
    Fault("agent-rolled-out", "agent rolled out", agent_rolled_out, (Ours,)),
    Fault("api-server", f"API server away for {FAULT_SECONDS:.0f} s", api_server_away),
)
CRASHES = (
    Fault("killed", "killed (-9)", killed),
    Fault("oom", "out of memory", out_of_memory),
    Fault("hanging", f"hangs for {FAULT_SECONDS:.0f} s", hanging),
    Fault("hanging-fast", "the same, `healthCheck.interval: 100ms`", hanging_with_a_fast_check, (Ours,)),
    Fault("upstream", f"all of the cluster's DNS hangs for {FAULT_SECONDS:.0f} s", upstream_hanging),
    Fault("agent-killed", "agent killed (-9)", agent_killed, (Ours,)),
    Fault("api-server-killed", "killed (-9) while the API server is away", killed_while_the_api_server_is_away),
)
FAULTS = (*ORDERLY, *CRASHES)
