"""The test bed itself: it behaves like a real cluster, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import binaries, dns, hollow, images, leftovers
from tests.cluster.binaries import ROOT
from tests.cluster.control_plane import ControlPlane, Manifest
from tests.cluster.node import PLACE, Node
from tests.cluster.places import CLUSTER_DNS
from tests.lab.processes import wait_until

SERVICE_ADDRESS = "10.96.1.1"
SERVICE_ADDRESS6 = "fd00:96::101"

OWNER = """
import sys, time
from tests.cluster.{module} import {kind}
with {kind}() as made:
    print(made.sandbox.id, made.sandbox._watchdog.pid, flush=True)
    time.sleep(600)
"""


def pod(name: str, script: str, image: str = images.BUSYBOX, **spec: object) -> Manifest:
    container = {"name": "main", "image": image, "imagePullPolicy": "Never", "command": ["sh", "-c", script]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container], **spec},
    }


def traces(identity: str) -> list[str]:
    """Everything on the machine that belongs to the sandbox."""
    found = [f"names of {identity}"] if identity in leftovers.found() else []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # Zombies do not count: only their exit code is left, until their parent asks for it.
            if identity in (process / "cgroup").read_text() and "\nState:\tZ" not in (process / "status").read_text():
                found.append(f"process {process.name} {(process / 'cmdline').read_bytes()!r}")
        except OSError:
            continue
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if identity in line]
    return found


def machine_state() -> list[str]:
    """State of the machine that a node could change without leaving its name there."""
    commands = ("nft list tables", "ip -o link", "ip -4 rule", "ip route", "sysctl net.ipv4.ip_forward kernel.panic")
    output = [subprocess.run(each.split(), check=True, capture_output=True, text=True).stdout for each in commands]
    return [*output, *sorted(path.name for path in Path("/sys/fs/bpf").iterdir())]


@pytest.fixture(scope="module")
def busy(node: Node) -> Node:
    """The node, with a server behind a Service, and with a client."""
    node.load_image(images.busybox())
    serve = "mkdir /www && echo served >/www/index.html && exec httpd -f -p 8080 -h /www"
    node.apply(
        [
            pod("server", serve),
            pod("client", "echo started; exec sleep 1000000"),
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "server"},
                "spec": {
                    "selector": {"app": "server"},
                    "ipFamilyPolicy": "RequireDualStack",
                    "clusterIP": SERVICE_ADDRESS,
                    "clusterIPs": [SERVICE_ADDRESS, SERVICE_ADDRESS6],
                    "ports": [{"port": 80, "targetPort": 8080}],
                },
            },
        ]
    )
    for name in ("server", "client"):
        node.wait_pod_ready(name)
    return node


@pytest.mark.parametrize("address", [SERVICE_ADDRESS, f"[{SERVICE_ADDRESS6}]"])
def test_a_service_answers_to_a_pod_and_to_the_host(busy: Node, address: str) -> None:
    fetch = ("busybox", "timeout", "2", "wget", "-q", "-O", "-", f"http://{address}/")

    def answers() -> bool:
        return busy.exec("client", *fetch, check=False).stdout == "served\n"

    wait_until(answers, "kube-proxy has the Service", 15)
    assert busy.run(*fetch).stdout == "served\n"


def test_a_pod_reaches_another_and_the_api_server(busy: Node) -> None:
    addresses = [each["ip"] for each in busy.api.get("/api/v1/namespaces/default/pods/server")["status"]["podIPs"]]
    assert len(addresses) == 2
    for address in (addresses[0], f"[{addresses[1]}]"):
        assert busy.exec("client", "wget", "-q", "-O", "-", f"http://{address}:8080/").stdout == "served\n"
    # Clients in Pods find the API server at this address. A server that speaks TLS answers so to plain HTTP.
    assert "400 Bad Request" in busy.exec("client", "wget", "-O", "-", "http://10.96.0.1:443/", check=False).stderr


def test_logs_and_exit_codes_come_through(busy: Node) -> None:
    assert busy.kubectl("logs", "client").stdout == "started\n"
    assert busy.exec("client", "sh", "-c", "exit 7", check=False).returncode == 7


def test_pods_are_in_our_cgroup_and_see_nothing_of_the_machine(busy: Node) -> None:
    cgroup = busy.pod_cgroup("client")
    assert cgroup.parent == busy.cgroup / "kubepods" / "besteffort"
    processes = [int(each) for path in cgroup.glob("*/cgroup.procs") for each in path.read_text().split()]
    assert len(processes) >= 2  # pause and ours
    for process in processes:
        assert all(f"/{busy.cgroup.name}/" in line for line in _cgroups(process) if "unified" not in line)


def _cgroups(process: int) -> list[str]:
    """The process's cgroups in the hierarchies with controllers, in which the kubelet limits Pods."""
    return [line for line in Path(f"/proc/{process}/cgroup").read_text().splitlines() if "name=" not in line]


def test_a_host_network_pod_has_the_nodes_namespace(busy: Node) -> None:
    busy.apply(pod("host", "exec sleep 1000000", hostNetwork=True))
    busy.wait_pod_ready("host")
    try:
        assert f"{PLACE.address}/24" in busy.exec("host", "ip", "addr", "show", "node0").stdout
        processes = [path.read_text().split() for path in busy.pod_cgroup("host").glob("*/cgroup.procs")]
        namespaces = {Path(f"/proc/{each}/ns/net").readlink() for found in processes for each in found}
        assert namespaces == {Path(busy.run("readlink", "/proc/self/ns/net").stdout.strip())}
        assert namespaces != {Path("/proc/self/ns/net").readlink()}
    finally:
        busy.delete_pod("host")


def test_a_host_process_is_on_the_node_and_in_its_own_cgroup(busy: Node) -> None:
    with busy.host_process(["sleep", "1000"]) as process:
        wait_until(lambda: b"sleep" in Path(f"/proc/{process.pid}/cmdline").read_bytes()[:6], "it runs", 5)
        assert f"0::/{busy.cgroup.name}/host" in Path(f"/proc/{process.pid}/cgroup").read_text()
        assert Path(f"/proc/{process.pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
        process.terminate()
        assert process.wait(5) == -signal.SIGTERM


def test_the_nodes_bpf_file_system_is_its_own(busy: Node) -> None:
    busy.run("mkdir", "/sys/fs/bpf/of-a-test")
    assert busy.path("/sys/fs/bpf/of-a-test").is_dir()
    assert not Path("/sys/fs/bpf/of-a-test").exists()
    busy.path("/sys/fs/bpf/of-a-test").rmdir()


def test_the_scheduler_and_the_daemonset_controller_accept_hollow_nodes(busy: Node) -> None:
    hollow.add_nodes(busy.api, 20, labels={"role": "agent"})
    labels = {"app": "agent"}
    containers = pod("agent", "true")["spec"]["containers"]
    template = {"metadata": {"labels": labels}, "spec": {"nodeSelector": {"role": "agent"}, "containers": containers}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    busy.apply({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent"}, "spec": spec})
    try:
        wait_until(lambda: hollow.make_ready(busy.api, selector="app=agent") == 20, "20 Pods are scheduled", 30)
        busy.kubectl("rollout", "status", "daemonset/agent", "--timeout=30s")
    finally:
        busy.kubectl("delete", "daemonset", "agent", "--cascade=foreground", "--wait=false")
        wait_until(lambda: not hollow.remove_pods(busy.api, selector="app=agent"), "its Pods are gone", 30)
        hollow.remove_nodes(busy.api, [f"hollow-{number}" for number in range(20)])


@pytest.fixture(scope="module")
def dns_node(busy: Node) -> Iterator[Node]:
    """The node, with the usual cluster DNS, the node's resolver that it asks, and a client with both C libraries."""
    busy.load_image(images.coredns())
    busy.load_image(images.lookup())
    with dns.upstream(busy):
        dns.deploy(busy)
        yield busy


@pytest.mark.parametrize("libc", dns.LIBCS)
@pytest.mark.parametrize("name", ["server.default.svc.cluster.local", "server", "any.upstream.test"])
def test_pods_resolve_names_inside_and_outside_the_cluster(dns_node: Node, libc: str, name: str) -> None:
    output = json.loads(dns_node.exec("resolver", f"lookup-{libc}", name, "3").stdout)
    assert (output["calls"], output["failed"]) == (3, 0)


@pytest.mark.parametrize("protocol", ["udp", "udp-connected", "tcp"])
def test_raw_lookups_count_every_answer(dns_node: Node, protocol: str) -> None:
    command = ["lookup-glibc", "--raw", CLUSTER_DNS, "server.default.svc.cluster.local", "--proto", protocol]
    output = json.loads(dns_node.exec("resolver", *command, "--count", "200", "--rate", "400").stdout)
    counts = {name: output[name] for name in ("queries", "answers", "lost", "refused", "failed")}
    assert counts == {"queries": 200, "answers": 200, "lost": 0, "refused": 0, "failed": 0}
    assert 0 < output["p50_ms"] <= output["p99_ms"] <= output["max_ms"]
    assert 300 < output["rate"] < 410


def test_raw_lookups_count_what_is_lost_and_refused(busy: Node) -> None:
    lookup = binaries.lookup("glibc")
    command = [str(lookup), "--raw", "127.0.0.1:5353", "a.test", "--count", "5", "--timeout-ms", "20", "--proto"]
    lost = json.loads(busy.run(*command, "udp", check=False).stdout)
    assert (lost["queries"], lost["lost"], lost["answers"]) == (5, 5, 0)
    refused = json.loads(busy.run(*command, "tcp", check=False).stdout)
    assert (refused["queries"], refused["refused"]) == (5, 5)


def test_a_lookup_that_is_stopped_prints_what_it_counted(dns_node: Node) -> None:
    command = ["--raw", CLUSTER_DNS, "server.default.svc.cluster.local", "--rate", "100"]
    process = dns_node.host_process([binaries.lookup("musl"), *command], stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)  # it says nothing before its end
    process.terminate()
    output = json.loads(process.communicate(timeout=5)[0])
    assert output["queries"] > 10
    assert output["answers"] == output["queries"]


def test_a_control_plane_keeps_its_objects_over_a_restart(control_plane: ControlPlane) -> None:
    plane = control_plane
    plane.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}, "data": {"a": "b"}})
    plane.stop_apiserver()
    assert plane.kubectl("get", "configmap", "kept", check=False).returncode == 1
    plane.start_apiserver()
    assert plane.api.get("/api/v1/namespaces/default/configmaps/kept")["data"] == {"a": "b"}
    assert plane.kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.a}").stdout == "b"


def test_a_paused_api_server_is_silent(control_plane: ControlPlane) -> None:
    control_plane.pause_apiserver()
    try:
        output = control_plane.kubectl("get", "--raw", "/readyz", "--request-timeout=1s", check=False)
        assert output.returncode == 1
    finally:
        control_plane.resume_apiserver()
    assert control_plane.kubectl("get", "--raw", "/readyz").stdout == "ok"


def test_another_identity_has_no_rights_until_it_is_given_some(control_plane: ControlPlane) -> None:
    control_plane.kubectl("create", "serviceaccount", "reader")
    token = control_plane.kubectl("create", "token", "reader").stdout.strip()
    kubeconfig = control_plane.make_kubeconfig(token)
    refused = control_plane.kubectl("get", "pods", check=False, kubeconfig=kubeconfig)
    assert "reader" in refused.stderr
    assert "forbidden" in refused.stderr
    control_plane.kubectl("create", "role", "reader", "--verb=list", "--resource=pods")
    control_plane.kubectl("create", "rolebinding", "reader", "--role=reader", "--serviceaccount=default:reader")

    def allowed() -> bool:
        return control_plane.kubectl("get", "pods", check=False, kubeconfig=kubeconfig).returncode == 0

    wait_until(allowed, "the authorizer knows the binding", 10)


def test_hollow_pods_need_no_controllers(control_plane: ControlPlane) -> None:
    api = control_plane.api
    nodes = hollow.add_nodes(api, 30)
    hollow.add_pods(api, nodes, labels={"app": "hollow"})
    items = api.get("/api/v1/namespaces/default/pods?labelSelector=app%3Dhollow")["items"]
    assert len({item["status"]["podIP"] for item in items}) == 30
    control_plane.wait("condition=Ready", 10, "pod", "-l", "app=hollow")
    assert hollow.remove_pods(api, selector="app=hollow") == 30
    hollow.remove_nodes(api, nodes)


def test_two_nodes_run_side_by_side_and_leave_nothing(busy: Node) -> None:
    before = machine_state()
    with Node() as other:
        other.load_image(images.busybox())
        other.apply(pod("client", "exec sleep 1000000"))
        other.wait_pod_ready("client")
        assert busy.exec("client", "true").returncode == 0
        assert traces(other.sandbox.id)
    assert traces(other.sandbox.id) == []
    assert machine_state() == before
    assert busy.exec("client", "true").returncode == 0


@pytest.mark.parametrize(("module", "kind"), [("control_plane", "ControlPlane"), ("node", "Node")])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_its_owner(module: str, kind: str, how: signal.Signals) -> None:
    with _owner(module, kind) as owner:
        identity, _ = _printed_by(owner)
        assert traces(identity)
        owner.send_signal(how)
        owner.wait(30)
    wait_until(lambda: not traces(identity), lambda: f"nothing is left, but {traces(identity)}", 20)


def test_the_next_start_removes_what_a_killed_watchdog_left(control_plane: ControlPlane) -> None:
    del control_plane  # it is here only because it must survive the sweep
    with _owner("node", "Node") as owner:
        identity, watchdog = _printed_by(owner)
        os.kill(watchdog, signal.SIGKILL)
        owner.kill()
        owner.wait()
    assert traces(identity)
    alive = leftovers.found() - {identity}
    leftovers.sweep()
    assert traces(identity) == []
    assert alive <= leftovers.found()


def test_no_node_of_a_cluster_outlives_its_owner() -> None:
    """Each node has a watchdog of its own, also after a restart."""
    program = """
import time
from tests.cluster import images
from tests.cluster.nodes import NETWORKS, Cluster
with Cluster([images.pause()], networks=NETWORKS[:2]) as made:
    made.members[1].power_off()
    made.members[1].power_on()
    print(made.sandbox.id, *(member.sandbox.id for member in made.members), flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        identities = owner.stdout.readline().split()
        assert len(identities) == 3
        assert all(map(traces, identities))
        owner.kill()
    for identity in identities:
        wait_until(lambda identity=identity: not traces(identity), f"nothing of {identity} is left", 20)  # type: ignore[misc]


def _owner(module: str, kind: str) -> subprocess.Popen[str]:
    program = OWNER.format(module=module, kind=kind)
    return subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _printed_by(owner: subprocess.Popen[str]) -> tuple[str, int]:
    """The sandbox's id, and the process id of its watchdog."""
    assert owner.stdout
    identity, watchdog = owner.stdout.readline().split()
    return identity, int(watchdog)
