"""On a real API server and node: from readiness to the kernel, requests of an idle agent, lookups of a Pod."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import yaml

from bpf.maps.packing import pack_frontend
from bpf.maps.pinned_maps import PinnedMaps
from config.domain.addresses import Frontend, Protocol
from tests.bench.events import resident
from tests.cluster import dns, hollow, images
from tests.cluster.binaries import ROOT
from tests.cluster.conftest import apply_crds
from tests.cluster.node import Node
from tests.cluster.places import CLUSTER_DNS
from tests.lab import manifests
from tests.lab.processes import wait_until

FLIPS = 300
OWN = "bench-0"
"""The hollow node that the agent believes to be its own. Only we report its Pods."""
POLICIES = 1000
PODS = 250
FOREIGN_PODS = 2000
IDLE_SECONDS = 160
"""Long enough for everything that happens once a minute, and for the renewal of a silent watch."""
LOOKUPS = 5000
AUDIT_POLICY = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}


@contextmanager
def agent_on(node: Node, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """Runs the agent as a process of the node, for the Pods of the node `name`. Detaches it afterwards."""
    config = node.folder / "agent.yaml"
    sections = {
        "node_name": name,
        "source": {"kind": "kubernetes", "kubeconfig": str(node.kubeconfig)},
        "datapath": {"cgroup": str(node.cgroup)},
        "log": {"level": "warning"},
    }
    config.write_text(yaml.safe_dump(sections))
    run = [sys.executable, str(ROOT / "run.py")]
    with (node.folder / "agent.log").open("ab") as log:
        agent: subprocess.Popen[bytes] = node.host_process([*run, "--config", str(config)], stdout=log, stderr=log)
    try:
        wait_until(lambda: fetch(node, "/readyz") == "ok\n", "the agent is ready", 30)
        yield agent
    finally:
        agent.terminate()
        agent.wait(10)
        node.run(*run, "detach", "--config", str(config))


def fetch(node: Node, path: str) -> str:
    """The answer of the agent's health server; "" when it fails."""
    try:
        return node.fetch(5810, path)
    except OSError:
        return ""


def state(node: Node, policy: str) -> str:
    """The policy's state; "" while the agent does not know the policy, or does not answer."""
    policies = json.loads(fetch(node, "/status") or '{"policies": []}')["policies"]
    return next((str(each["state"]) for each in policies if each["name"] == policy), "")


def measure() -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    audit = Path("/tmp") / f"lrc-audit-{os.getpid()}"  # noqa: S108
    audit.mkdir()
    (audit / "policy.yaml").write_text(yaml.safe_dump(AUDIT_POLICY))
    flags = [f"--audit-policy-file={audit}/policy.yaml", f"--audit-log-path={audit}/log"]
    try:
        with Node(apiserver_flags=flags) as node:
            apply_crds(node)
            rows += lookups(node)
            rows += readiness_to_kernel(node)
            rows += idle(node, audit / "log")
    finally:
        subprocess.run(["rm", "-r", str(audit)], check=True)
    return rows


def readiness_to_kernel(node: Node) -> list[tuple[str, str]]:
    """The time from just before a Pod's status is patched at the API until the row in the kernel, seen from outside."""
    hollow.add_nodes(node.api, 1, prefix="bench")
    for number in range(PODS):
        (name,) = hollow.add_pods(node.api, [OWN], prefix=f"own-{number}", labels={"app": f"app{number}"})
        uid = node.api.get(f"/api/v1/namespaces/default/pods/{name}")["metadata"]["uid"]
        (node.cgroup / "hollow" / f"pod{uid}").mkdir(parents=True)  # as a kubelet does
    for number in range(POLICIES):
        body = manifests.policy(f"bench-{number}", ip=vip(number), app=f"app{number % PODS}")
        node.api.create(
            f"/apis/{manifests.GROUP}/localredirectpolicies", body | {"metadata": {"name": f"bench-{number}"}}
        )
    rows = []
    with agent_on(node, OWN) as agent:
        build = json.loads(fetch(node, "/status"))["build"]
        maps = PinnedMaps(node.path(f"/sys/fs/bpf/balancing/{build}/maps"))
        wait_until(lambda: sum(1 for _ in maps["frontends"].items()) == POLICIES, "all policies are installed", 60)
        rows.append(
            (f"readiness patched at the API to the kernel, {POLICIES} policies, {PODS} Pods", _flips(node, maps))
        )
        rows.append((f"resident memory at {POLICIES} policies of the API", resident(agent)))
        maps.close()
    for number in range(POLICIES):
        node.api.delete(f"/apis/{manifests.GROUP}/localredirectpolicies/bench-{number}")
    hollow.remove_pods(node.api)
    return rows


def vip(number: int) -> str:
    return f"169.254.{number // 250}.{number % 250 + 1}"


def _flips(node: Node, maps: PinnedMaps) -> str:
    """Makes a Pod Ready and not Ready in turn."""
    path = f"/api/v1/namespaces/default/pods/own-7-{OWN}"
    key = pack_frontend(Frontend(ip_address(vip(7)), 53, Protocol.UDP))
    pod = node.api.get(path)
    others = [each for each in pod["status"]["conditions"] if each["type"] != "Ready"]
    times, calls = [], []
    for flip in range(FLIPS):
        ready = flip % 2 == 1
        status = {"conditions": [*others, {"type": "Ready", "status": str(ready)}]}
        began = time.perf_counter()
        node.api.patch(f"{path}/status", {"status": status})
        calls.append((time.perf_counter() - began) * 1000)
        while (maps["frontends"].lookup(key) is not None) != ready:
            time.sleep(0)
        times.append((time.perf_counter() - began) * 1000)
    cuts, of_calls = statistics.quantiles(times, n=100), statistics.quantiles(calls, n=100)
    patch = f"the patch itself p50 {of_calls[49]:.1f}, p99 {of_calls[98]:.1f}"
    return f"p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms; {patch}"


def idle(node: Node, log: Path) -> list[tuple[str, str]]:
    rows = []
    nodes = 1  # the agent's own
    for number, pods in ((10, 0), (200, FOREIGN_PODS)):
        names = hollow.add_nodes(node.api, number - nodes, prefix=f"of-{number}")
        nodes = number
        for batch in range(pods // len(names)):
            hollow.add_pods(node.api, names, prefix=f"foreign-{batch}", labels={"app": "foreign"})
        with agent_on(node, OWN) as agent:
            requests, before = _requests(log), _bytes(node, agent)
            seen: dict[str, int] = {}
            for _ in range(IDLE_SECONDS):
                time.sleep(1)  # the measurement itself; connections come and go
                seen |= _bytes(node, agent)
            more = _requests(log) - requests
        size = sum(count - before.get(connection, 0) for connection, count in seen.items())
        text = f"{more.total() / IDLE_SECONDS:.3f} requests/s, {size / IDLE_SECONDS:.0f} bytes/s"
        rows.append((f"an idle agent at the API server, {nodes} nodes, {pods} foreign Pods", text))
    return rows


def _requests(log: Path) -> Counter[str]:
    """The agent's requests by verb and path, from the API server's audit log."""
    found: Counter[str] = Counter()
    for line in log.read_text().splitlines():
        entry = json.loads(line)
        if entry.get("userAgent") == "localredirect" and entry["stage"] == "RequestReceived":
            found[f"{entry['verb']} {entry['requestURI'].partition('?')[0]}"] += 1
    return found


def _bytes(node: Node, agent: subprocess.Popen[bytes]) -> dict[str, int]:
    """Open connection of the agent to the API server -> bytes that it has sent and received there."""
    output = subprocess.run(
        [*node.sandbox.enter(mounts=False), "ss", "-tinpHO", "dport", "=", f":{node.port}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = {}
    for line in output.splitlines():
        if f"pid={agent.pid}," in line:
            words = dict(word.split(":", 1) for word in line.split() if word.count(":") == 1)
            found[line.split()[3]] = int(words.get("bytes_received", 0)) + int(words.get("bytes_sent", 0))
    return found


def lookups(node: Node) -> list[tuple[str, str]]:
    """Compares three ways of a lookup: by kube-proxy, redirected, and directly to the server. They are measured in
    turn, so that a drift of the machine affects all alike."""
    for archive in (images.coredns(), images.lookup()):
        node.load_image(archive)
    rows = []
    with dns.upstream(node):
        dns.deploy(node)
        pods = node.api.get("/api/v1/namespaces/kube-system/pods?labelSelector=k8s-app%3Dkube-dns")["items"]
        direct = pods[0]["status"]["podIP"]
        spec = {
            "frontend": {"serviceMatcher": {"serviceName": "kube-dns", "namespace": "kube-system"}},
            "backend": {
                "endpointSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
                "toPorts": [
                    {"port": 53, "protocol": "UDP", "name": "dns"},
                    {"port": 53, "protocol": "TCP", "name": "dns-tcp"},
                ],
            },
        }
        policy = {"apiVersion": manifests.GROUP, "kind": "LocalRedirectPolicy", "metadata": {"name": "lookups"}}
        node.apply({**policy, "spec": spec})
        with agent_on(node, node.node_name):
            wait_until(lambda: state(node, "lookups") == "Active", "the policy is active", 30)
            rows += [
                (f"lookups of a Pod, {protocol}, new socket each", _compare(node, protocol, direct))
                for protocol in ("udp", "udp-connected")
            ]
        node.kubectl("delete", "lr", "lookups")
    return rows


def _compare(node: Node, protocol: str, direct: str) -> str:
    found: dict[str, list[dict[str, Any]]] = {"kube-proxy": [], "redirected": [], "direct": []}
    for _ in range(4):
        for way, results in found.items():
            switch = {"spec": {"enabled": way == "redirected"}}
            node.api.patch(f"/apis/{manifests.GROUP}/localredirectpolicies/lookups", switch)
            wanted = "Active" if way == "redirected" else "Disabled"
            wait_until(lambda wanted=wanted: state(node, "lookups") == wanted, f"the policy is {wanted}", 30)  # type: ignore[misc]
            node.forget_udp()
            server = direct if way == "direct" else CLUSTER_DNS
            command = ["lookup-musl", "--raw", server, dns.NAME, "--proto", protocol, "--count", str(LOOKUPS)]
            # The program's exit code is 1 when a lookup is lost.
            results.append(json.loads(node.exec("resolver", *command, check=False).stdout))
    rates = {way: statistics.mean(each["rate"] for each in results) for way, results in found.items()}
    lost = {way: sum(each["queries"] - each["answers"] for each in results) for way, results in found.items()}
    parts = [
        f"{way} {rates[way]:.0f}/s ({rates[way] / rates['direct']:.3f} of direct, {lost[way]} of {4 * LOOKUPS} lost)"
        for way in found
    ]
    return "; ".join(parts)
