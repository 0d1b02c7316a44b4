"""Situations in which an operator asks why, and the sentence of `run.py explain` that names the policy and the field.

Each is made with a real agent, real processes and real calls: the call does what the sentence says.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from bpf import libbpf
from bpf.maps import hashes, packing
from bpf.monitoring.shared_rows import SharedRows
from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.lab import CLUSTER_IP, CLUSTER_IP6, REMOTE, VIP, Lab, Manifest, PodProcess
from tests.lab.neighbours import foreign_programs
from tests.lab.processes import wait_until
from tests.lab.rows import installed_maps
from tests.lab.worker import SLOWNESS

MAX_BACKENDS = 8
AGENT_OPTIONS = {"datapath__max_backends": MAX_BACKENDS}
"""Its map of backends is soon full."""
TO = f"{VIP}:53/UDP"
CLIENT = "default/client"


@pytest.fixture(autouse=True)
def pods_are_known(lab: Lab, pods: list[PodProcess], client: PodProcess) -> None:
    lab.write("pods", manifests.pod(pods[0]), manifests.pod(client, app="client"))


def explain(lab: Lab, agent: Agent, client: str, call: str) -> dict[str, Any]:
    """As the agent's container runs it: in the network of the node."""
    done = agent.command(
        "explain", "--from", client, "--to", call, "-o", "json", within=("nsenter", f"--net=/run/netns/{lab.node}")
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def put(manifest: Manifest, **fields: Any) -> Manifest:
    """Sets fields of a policy's spec, named `backend__namespace`."""
    for path, value in fields.items():
        *parents, last = path.split("__")
        at = manifest["spec"]
        for parent in parents:
            at = at[parent]
        at[last] = value
    return manifest


def without_ipv6(pod: Manifest) -> Manifest:
    pod["status"]["podIPs"] = pod["status"]["podIPs"][:1]
    return pod


OLDER, NEWER = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
DNS_OVER_BOTH = manifests.service(ports=(("dns", 53, "UDP"),))


@dataclass(frozen=True, kw_only=True)
class Situation:
    policies: Callable[[], list[Manifest]] = field(default=lambda: [manifests.policy("vip")])
    others: tuple[Manifest, ...] = ()
    state: str
    """Of the policy that the sentence names."""
    policy: str = "vip"
    change: Callable[[Manifest], Manifest] = lambda pod: pod
    """Of the backend Pod."""
    client: str = CLIENT
    to: str = TO
    verdict: str = "no_match"
    reason: str | None = "no_frontend"
    says: tuple[str, ...] = ()


SITUATIONS = {
    "healthy and working": Situation(
        state="Active",
        verdict="redirect",
        reason=None,
        says=("policy vip redirects the call to 10.77.0.2:53, as spec.backend says",),
    ),
    "mapped address": Situation(
        state="Active",
        to=f"[::ffff:{VIP}]:53/UDP",
        verdict="redirect",
        reason=None,
        says=("policy vip redirects the call to 10.77.0.2:53, as spec.backend says",),
    ),
    "shadow": Situation(
        policies=lambda: [manifests.policy("vip", mode="Shadow")],
        state="Active",
        verdict="pass",
        reason="shadow",
        says=("policy vip leaves the call alone, since spec.config.mode is Shadow",),
    ),
    "wrong port": Situation(
        state="Active",
        to=f"{VIP}:5353/UDP",
        says=("policy vip has this address with 53/UDP only", "spec.frontend (toPorts) does not give it 5353/UDP"),
    ),
    "other protocol": Situation(
        state="Active",
        to=f"{VIP}:53/TCP",
        says=("policy vip has this address with 53/UDP only", "spec.frontend (toPorts) does not give it 53/TCP"),
    ),
    "UDP against TCP": Situation(
        policies=lambda: [manifests.policy("vip", ports=((80, "TCP"),), backend_port=80)],
        state="Active",
        to=f"{VIP}:80/UDP",
        says=("policy vip has this address with 80/TCP only", "spec.frontend (toPorts) does not give it 80/UDP"),
    ),
    "other family": Situation(
        policies=lambda: [manifests.policy("vip", service_name="http-server-v4")],
        others=(DNS_OVER_BOTH,),
        change=without_ipv6,
        state="Active",
        to=f"[{CLUSTER_IP6}]:53/UDP",
        says=("policy vip names it in spec.frontend", "none of the Pods that spec.backend selects has an IPv6 address"),
    ),
    "not ready": Situation(
        state="NoBackend",
        change=lambda pod: pod | {"status": {**pod["status"], "conditions": []}},
        says=("policy vip", "NoBackend", "spec.backend gives no usable Pod", "default/pod0 (not Ready)"),
    ),
    "wrong namespace": Situation(
        policies=lambda: [put(manifests.policy("vip"), backend__namespace="other")],
        state="NoBackend",
        says=("policy vip", "NoBackend", "spec.backend.endpointSelector", "(other); set spec.backend.namespace"),
    ),
    "conflict": Situation(
        policies=lambda: [
            manifests.policy("old", app="none", created=OLDER),
            manifests.policy("vip", created=NEWER),
        ],
        state="Conflict",
        says=("policy old names it in spec.frontend and is NoBackend",),
    ),
    "conflict of a Service": Situation(
        policies=lambda: [
            manifests.policy(
                "old", service_name="http-server-v4", ports=((80, "TCP"),), backend_port=80, created=OLDER
            ),
            manifests.policy("vip", service_name="http-server-v4", created=NEWER),
        ],
        others=(manifests.service(ports=(("dns", 53, "UDP"), ("web", 80, "TCP"))),),
        state="Conflict",
        to=f"{CLUSTER_IP}:53/UDP",
        says=("policy vip names it in spec.frontend and is Conflict", "held by LocalRedirectPolicy old"),
    ),
    "invalid": Situation(
        policies=lambda: [manifests.policy("vip", redirectQosLimit=-1)],
        state="Invalid",
        says=("policy vip is Invalid", "spec.config.redirectQosLimit: -1 is wrong"),
    ),
    "disabled": Situation(
        policies=lambda: [put(manifests.policy("vip"), enabled=False)],
        state="Disabled",
        says=("policy vip", "Disabled", "spec.enabled is false"),
    ),
    "node not selected": Situation(
        policies=lambda: [manifests.policy("vip", nodeLabelSelector={"matchLabels": {"zone": "elsewhere"}})],
        state="NodeNotSelected",
        says=("policy vip", "spec.config.nodeLabelSelector does not match"),
    ),
    "full map": Situation(
        policies=lambda: [manifests.policy("vip", ports=tuple((53 + i, "UDP") for i in range(MAX_BACKENDS + 1)))],
        state="Failed",
        says=("policy vip", "Failed", "datapath.max_backends"),
    ),
    "the backend itself": Situation(
        state="Active",
        client="default/pod0",
        verdict="pass",
        reason="from_backend",
        says=("policy vip leaves the call alone", "spec.config.skipRedirectFromBackend is true"),
    ),
    "host excluded": Situation(
        policies=lambda: [manifests.policy("vip", redirectFromHost=False)],
        state="Active",
        client="host",
        verdict="pass",
        reason="from_host",
        says=("policy vip leaves the call alone", "spec.config.redirectFromHost is false"),
    ),
    "outside the covered cgroup": Situation(
        state="Active",
        client=f"pid:{os.getpid()}",
        verdict="pass",
        reason="not_covered",
        says=("policy vip has this frontend (spec.frontend)", "is outside datapath.cgroup"),
    ),
}


@pytest.mark.parametrize("situation", SITUATIONS.values(), ids=SITUATIONS)
def test_one_sentence_names_policy_and_field(
    lab: Lab, agent: Agent, pods: list[PodProcess], client: PodProcess, situation: Situation
) -> None:
    backend = situation.change(manifests.pod(pods[0]))
    lab.write("pods", backend, manifests.pod(client, app="client"), *situation.others)
    lab.write("policies", *situation.policies())
    wait_until(lambda: agent.states().get(situation.policy) == situation.state, f"the policy is {situation.state}")
    found = explain(lab, agent, situation.client, situation.to)
    assert (found["verdict"], found["reason"]) == (situation.verdict, situation.reason), found
    assert not [each for each in situation.says if each not in found["summary"]], found["summary"]


def test_without_a_policy_explain_says_so(lab: Lab, agent: Agent) -> None:
    found = explain(lab, agent, CLIENT, TO)
    assert (found["verdict"], found["reason"], found["policy"]) == ("no_match", "no_frontend", None)
    assert found["summary"].endswith(f"{TO} is not a frontend: no policy names it in spec.frontend")


def activate(lab: Lab, agent: Agent, **config: Any) -> None:
    lab.write("policies", manifests.policy("vip", **config))
    wait_until(lambda: agent.states() == {"vip": "Active"}, "active")


def test_the_limit_is_named_while_it_is_reached(lab: Lab, agent: Agent, client: PodProcess) -> None:
    activate(lab, agent, redirectQosLimit=5)
    with installed_maps(lab) as maps:
        (policy_id,) = maps.policy_rows()
        # A window in the future, as a CPU whose clock is ahead has it: so the second does not end during the test.
        second = time.monotonic_ns() // 10**9 + 10_000
        maps["windows"].update(packing.POLICY_ID.pack(policy_id), (second << 32 | 5).to_bytes(8, "little"))
    found = explain(lab, agent, CLIENT, TO)
    assert (found["verdict"], found["reason"]) == ("pass", "qos")
    assert "policy vip leaves the call alone, since the limit of 5 redirects a second" in found["summary"]
    assert "spec.config.redirectQosLimit" in found["summary"]
    assert client.do("udp", address=VIP, port=53)["who"] == REMOTE


def test_explain_says_that_a_client_is_outside_the_percentage(
    lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess]
) -> None:
    places = {each.pid: hashes.client_place(each.do("cookie")["cookie"]) for each in (client, *pods[1:])}
    outside = max(places, key=lambda pid: places[pid])
    activate(lab, agent, percentage=places[outside])
    found = explain(lab, agent, f"pid:{outside}", TO)
    assert (found["verdict"], found["reason"]) == ("pass", "percentage")
    assert found["summary"] == (
        f"policy vip leaves the call alone, since the client is not among the {places[outside]} % of clients that the "
        "policy redirects (spec.config.percentage)"
    )
    lab.write("policies", manifests.policy("vip", percentage=places[outside] + 1))
    wait_until(lambda: explain(lab, agent, f"pid:{outside}", TO)["verdict"] == "redirect", "it is among them")


def test_a_backend_that_is_kept_by_affinity_is_named(lab: Lab, agent: Agent, client: PodProcess) -> None:
    activate(lab, agent, sessionAffinity="ClientIP")
    assert client.do("udp", address=VIP, port=53)["who"] == "pod0"
    found = explain(lab, agent, CLIENT, TO)
    assert (found["verdict"], found["affinity"], found["backends"]) == ("redirect", "10.77.0.2:53", ["10.77.0.2:53"])
    assert found["summary"] == (
        "policy vip redirects the call to 10.77.0.2:53, which the client keeps by spec.config.sessionAffinity"
    )


def test_another_program_that_runs_first_is_named(lab: Lab, agent: Agent, client: PodProcess) -> None:
    activate(lab, agent)
    assert client.cgroup
    with foreign_programs(client.cgroup, "192.0.2.1", "192.0.2.2") as theirs:
        found = explain(lab, agent, CLIENT, TO)
    assert found["verdict"] == "redirect"
    assert (
        "policy vip redirects the call to 10.77.0.2:53, as spec.backend says, unless a program of other"
        in found["summary"]
    )
    assert "datapath.cgroup" in found["summary"] and theirs["connect4"][0] in found["summary"]


def test_explain_says_that_a_pod_may_have_a_kernel_of_its_own(
    lab: Lab, agent: Agent, pods: list[PodProcess], client: PodProcess
) -> None:
    virtual = manifests.pod(client, app="client")
    virtual["spec"]["runtimeClassName"] = "kata"
    lab.write("pods", manifests.pod(pods[0]), virtual)
    activate(lab, agent)
    assert explain(lab, agent, CLIENT, TO)["summary"] == (
        "policy vip redirects the call to 10.77.0.2:53, as spec.backend says, unless spec.runtimeClassName (kata) "
        "gives the Pod a kernel of its own, as Kata and gVisor do"
    )


def test_a_hook_without_our_program_is_named(lab: Lab, agent: Agent) -> None:
    activate(lab, agent)
    with libbpf.opened_pin(lab.bpffs / "links" / "connect4") as link:
        libbpf.link_detach(link)
    found = explain(lab, agent, CLIENT, TO)
    agent.terminate()
    agent.start()  # it attaches its programs again
    assert (found["verdict"], found["reason"]) == ("pass", "not_attached")
    assert "policy vip has this frontend (spec.frontend), since no program is attached at connect4" in found["summary"]


def test_what_a_dead_agent_left_is_named_as_such_and_so_is_the_end_of_its_lease(
    lab: Lab, agent: Agent, client: PodProcess
) -> None:
    activate(lab, agent)
    agent.kill()
    left = explain(lab, agent, CLIENT, TO)
    assert left["verdict"] == "redirect"
    assert "policy vip redirects the call to 10.77.0.2:53" in left["summary"]
    assert "no agent answers at" in left["summary"] and "datapath.lease_seconds" in left["summary"]
    absent = explain(lab, agent, CLIENT, "192.0.2.7:53/UDP")
    assert "no agent answers at" in absent["summary"] and "start the agent" in absent["summary"]
    age = math.ceil(100 * SLOWNESS)  # longer than the lease, and shorter than the machine has been up
    with installed_maps(lab) as maps:
        maps.renew_lease(time.monotonic_ns() - age * 10**9)
    over = explain(lab, agent, CLIENT, TO)
    assert (over["verdict"], over["reason"]) == ("pass", "lease")
    assert f"policy vip leaves the call alone, since the agent's lease was renewed {age // 10}" in over["summary"]
    assert "datapath.lease_seconds is" in over["summary"]
    assert client.do("udp", address=VIP, port=53)["who"] == REMOTE
    agent.start()


def test_explain_says_that_nothing_is_installed(lab: Lab, agent: Agent) -> None:
    agent.terminate()
    agent.command("detach")
    found = explain(lab, agent, "host", TO)
    agent.start()
    assert (found["verdict"], found["reason"]) == ("no_match", "no_frontend")
    assert "nothing of ours is installed in the kernel" in found["summary"]


@pytest.mark.parametrize(
    ("asked", "call", "code", "says"),
    [
        ("somebody", TO, 2, "--from: 'somebody' is wrong; it must be NAMESPACE/POD, host, pid:N or cgroup:PATH"),
        ("pid:4194305", TO, 2, "there is no process 4194305"),
        ("cgroup:/nowhere", TO, 2, "is no cgroup2 directory"),
        ("host", "10.96.0.10:53", 2, "--to: '10.96.0.10:53' is wrong; it must be IP:PORT/PROTO"),
        ("host", "10.96.0.10:70000/UDP", 2, "a port from 1 to 65535"),
        ("host", "fd00::1:53/UDP", 2, "such as 10.96.0.10:53/UDP or [fd00::10]:80/TCP"),
        ("host", "10.96.0.10:53/SCTP", 2, "with TCP or UDP"),
        ("default/nobody", TO, 1, "there is no Pod default/nobody of node node in the manifests of"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_is_allowed(
    agent: Agent, asked: str, call: str, code: int, says: str
) -> None:
    done = agent.command("explain", "--from", asked, "--to", call)
    assert done.returncode == code
    assert says in done.stderr and not done.stdout


def test_text_has_every_check_and_ends_with_the_sentence(lab: Lab, agent: Agent) -> None:
    activate(lab, agent)
    within = ("nsenter", f"--net=/run/netns/{lab.node}")
    lines = agent.command("explain", "--from", CLIENT, "--to", TO, within=within).stdout.splitlines()
    assert lines[0].startswith("from default/client (cgroup ")
    assert lines[1] == f"to {TO}"
    checks = [line.split()[0] for line in lines[4:-2]]
    assert checks[:3] == ["attached", "covered", "first"] and checks[-1] == "shadow"
    assert lines[-1] == "policy vip redirects the call to 10.77.0.2:53, as spec.backend says"


def test_what_nobody_can_see_is_unknown_until_a_call_of_the_client_is_watched(
    lab: Lab, agent: Agent, client: PodProcess
) -> None:
    """As in the agent's container, which sees the cgroups of the node, and not its processes."""
    activate(lab, agent, sessionAffinity="ClientIP")
    assert client.do("udp", address=VIP, port=53)["who"] == "pod0"
    within = ("nsenter", f"--net=/run/netns/{lab.node}", "unshare", "--pid", "--fork", "--mount-proc")

    def explained() -> dict[str, Any]:
        done = agent.command("explain", "--from", CLIENT, "--to", TO, "-o", "json", within=within)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    found = explained()
    (affinity,) = (step for step in found["steps"] if step["check"] == "affinity")
    assert affinity["result"] == "unknown" and "network namespace is unknown" in affinity["detail"]
    assert (found["verdict"], found["affinity"]) == ("redirect", None)
    watching = SharedRows(lab.bpffs / agent.status()["build"] / "maps")
    watching.renew(time.monotonic_ns())
    client.do("udp", address=VIP, port=53)
    watching.close()
    assert explained()["affinity"] == "10.77.0.2:53"
