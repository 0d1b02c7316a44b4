"""One node of a cluster, in namespaces and cgroups of its own: containerd with runc, the kubelet and kube-proxy.

Pods get IPv4 and IPv6 addresses by a CNI plugin. The kubelet tells Pods that the cluster's DNS is at CLUSTER_DNS, but
nothing answers there unless a test deploys it. Node (tests.cluster.node) is a cluster with only one, Cluster
(tests.cluster.nodes) has several.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal
from urllib.request import ProxyHandler, build_opener

import yaml

from tests.cluster import binaries, images, node_files
from tests.cluster.control_plane import NODE_SECONDS, Manifest, WholeControlPlane
from tests.cluster.leftovers import hierarchies
from tests.cluster.node_files import CONTAINERD, SYSCTLS, Cni
from tests.cluster.node_view import NodeView
from tests.cluster.places import UPSTREAM_DNS, Place, addresses_of, routes_to
from tests.cluster.processes import checked, run
from tests.cluster.sandbox import Sandbox
from tests.cluster.switched import SWITCH
from tests.lab.processes import wait_until

Proxy = Literal["nftables", "iptables-nft", "iptables-legacy"]
"""Mode of kube-proxy. `iptables` is there twice, since the program of that name writes one of two kinds of rules."""

_CRI = """
restrict_oom_score_adj = true  # lowering a score needs CAP_SYS_RESOURCE, which not every root has
disable_apparmor = true
"""


class Machine(NodeView):
    """A node in a sandbox of this machine."""

    _lease_seconds = 40
    """How long the kubelet's Lease is valid. The kubelet renews it four times within that."""

    def __init__(
        self,
        plane: WholeControlPlane,
        sandbox: Sandbox,
        name: str,
        place: Place,
        *,
        cni: Cni = "bridge",
        proxy: Proxy = "nftables",
    ) -> None:
        super().__init__(plane, name)
        self.sandbox = sandbox
        self.folder = sandbox.folder
        self.netns = sandbox.netns
        self.cgroup = sandbox.cgroup
        self.place = place
        self.cni, self.proxy = cni, proxy
        self.kubeconfig = plane.kubeconfig
        self.resolv_conf = self.folder / "resolv.conf"
        """Becomes /etc/resolv.conf of Pods with dnsPolicy Default, such as the cluster's DNS. Read when a Pod
        starts."""

    def start_machine(self, *, switch: str = "", neighbours: Sequence[Place] = ()) -> None:
        """Starts what a node runs; it registers itself with the API server. `switch` is the network namespace that has
        the bridge SWITCH. The node is connected to that bridge; if `switch` is empty, it has no connection."""
        self._open_network(switch, neighbours)
        self.resolv_conf.write_text(f"nameserver {UPSTREAM_DNS}\n")
        self._start_containerd()
        self._start_kube_proxy()
        self._start_kubelet()

    def _open_network(self, switch: str, neighbours: Sequence[Place]) -> None:
        """Gives the node an address other than loopback, routes, and forwarding."""
        place = self.place
        peer = place.switch_port
        own, other = f"-n {self.netns}", f"-n {switch or self.netns}"
        for arguments in (
            f"{own} link add node0 type veth peer name {peer} netns {switch or self.netns}",
            *([f"{other} link set {peer} master {SWITCH}"] if switch else []),
            f"{other} link set {peer} up",
            *(f"{own} {line}" for line in addresses_of(place, "node0")),
            *(f"{own} {line}" for each in neighbours if each != place for line in routes_to(each)),
        ):
            run("ip", *arguments.split())
        run(*self.sandbox.enter(mounts=False), "sysctl", "--quiet", "--write", *SYSCTLS)
        (self.folder / "cni").mkdir(exist_ok=True)
        (self.folder / "cni" / "10-pods.conflist").write_text(node_files.pod_network(place, self.cni))

    def _start_containerd(self) -> None:
        config = self.folder / "containerd.toml"
        config.write_text(node_files.containerd(self.folder / "cni", systemd=False, cri=_CRI))
        self.sandbox.daemon("containerd", "containerd", "--config", config)
        wait_until(
            self._containerd_answers, lambda: f"containerd answers\n{self.sandbox.logs('containerd')}", NODE_SECONDS
        )
        if images.PAUSE not in self.images():
            self.load_image(images.pause())

    def _containerd_answers(self) -> bool:
        return subprocess.run(self._ctr("version"), capture_output=True, check=False).returncode == 0

    def _start_kube_proxy(self) -> None:
        config = node_files.kube_proxy(self.node_name, self.kubeconfig, self.proxy.partition("-")[0])
        written = self._write("kube-proxy", config)
        self._daemon("kube-proxy", binaries.kubernetes("kube-proxy"), f"--config={written}")

    def _daemon(self, name: str, *argv: str | Path) -> None:
        """Starts a program that may call iptables. Debian has two kinds of it; a folder of links chooses one."""
        self.sandbox.daemon(name, "env", f"PATH={self._iptables()}:{os.environ['PATH']}", *argv)

    def _iptables(self) -> Path:
        folder = self.folder / "iptables"
        kind = "legacy" if self.proxy == "iptables-legacy" else "nft"
        folder.mkdir(exist_ok=True)
        for name in ("iptables", "ip6tables"):
            for suffix in ("", "-save", "-restore"):
                link = folder / f"{name}{suffix}"
                link.unlink(missing_ok=True)
                link.symlink_to(f"/usr/sbin/xtables-{kind}-multi")
        return folder

    def _start_kubelet(self) -> None:
        config = node_files.kubelet(self.resolv_conf, lease_seconds=self._lease_seconds) | {
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": "/" if self.sandbox.own_cgroups else f"/{self.sandbox.id}",
            "failCgroupV1": False,
        }
        self._daemon(
            "kubelet",
            binaries.kubernetes("kubelet"),
            f"--config={self._write('kubelet', config)}",
            f"--kubeconfig={self.kubeconfig}",
            f"--hostname-override={self.node_name}",
            f"--node-ip={self.place.address},{self.place.address6}",
        )

    def _write(self, name: str, config: Manifest) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    def _ctr(self, *arguments: str) -> list[str]:
        return [*self.sandbox.enter(), "ctr", "--address", CONTAINERD, "--namespace", "k8s.io", *arguments]

    def load_image(self, archive: Path) -> None:
        """Imports a `docker-archive` (see tests.cluster.images) under the names that are in it."""
        run(*self._ctr("images", "import", str(archive.resolve())))

    def tag_image(self, name: str, further: str) -> None:
        """Gives a loaded image another name as well."""
        run(*self._ctr("images", "tag", name, further))

    def images(self) -> list[str]:
        """Names of the images that Pods can use."""
        names = run(*self._ctr("images", "list", "--quiet")).split()
        return [name for name in names if not name.startswith("sha256:")]

    def run(self, *command: str, check: bool = True, input: str | None = None) -> subprocess.CompletedProcess[str]:  # noqa: A002
        """Runs a command on the node: in its namespaces, with its mounts, in the cgroup `host`."""
        process = self.host_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        stdout, stderr = process.communicate(input)
        done = subprocess.CompletedProcess(command, process.returncode, stdout, stderr)
        return checked(done) if check else done

    def fetch(self, port: int, path: str) -> str:
        with self.sandbox.inside():
            answer = build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{port}{path}", timeout=5)
            text: str = answer.read().decode()
        return text

    def forget_udp(self) -> None:
        """Deletes the UDP entries of connection tracking. They last for half a minute, and a lookup from a port that
        another lookup has just used would be lost, or be sent where the other one went. TCP entries stay: without
        theirs, the agent's connection to the Service of the API server would hang."""
        self.run("conntrack", "--delete", "--proto", "udp", check=False)  # it fails if there is no entry

    def host_process(self, argv: Sequence[str | Path], **popen: Any) -> subprocess.Popen[Any]:
        """Starts a process of the node itself, like `run`. It is killed with the node."""
        return self.sandbox.spawn(argv, cgroup="host", **popen)

    def path(self, inside: str) -> Path:
        """Translates a path of the node's mount namespace (`/sys/fs/bpf/...`, `/run/...`) for use from outside it."""
        return self.sandbox.path(inside)

    def pod_cgroup(self, pod: str, *, namespace: str = "default") -> Path:
        """The Pod's cgroup2 directory, which has its containers' below it. Raises LookupError when there is none."""
        found = self.api.get(f"/api/v1/namespaces/{namespace}/pods/{pod}")
        uid = found["metadata"]["uid"]
        for directory, names, _ in os.walk(self.cgroup):
            if f"pod{uid}" in names:
                return Path(directory, f"pod{uid}")
        msg = f"Pod {namespace}/{pod} has no cgroup below {self.cgroup}"
        raise LookupError(msg)

    def processes(self, pod: str, *, namespace: str = "default") -> dict[int, str]:
        """The Pod's processes, without the pause process: id -> name of the program. Empty while none runs."""
        found = {}
        for path in self.pod_cgroup(pod, namespace=namespace).glob("*/cgroup.procs"):
            with suppress(OSError):  # the container has just ended
                found.update({int(each): _program(int(each)) for each in path.read_text().split()})
        return {process: program for process, program in found.items() if program not in ("", "pause")}

    def process_of(self, pod: str, program: str, *, namespace: str = "default") -> int:
        """The id of the Pod's process that runs this program. Raises LookupError while there is none."""
        for process, name in self.processes(pod, namespace=namespace).items():
            if name == program:
                return process
        msg = f"no process of Pod {namespace}/{pod} runs {program}"
        raise LookupError(msg)

    def beside(self, pod: str, argv: Sequence[str], **popen: Any) -> subprocess.Popen[Any]:
        """Starts a process in the cgroup, the network and the file system of a running container, like `kubectl exec`,
        but without the API server. The id of the process is the program's own."""
        container = next(iter(self.processes(pod)))
        (cgroup,) = (
            line.removeprefix("0::") for line in Path(f"/proc/{container}/cgroup").read_text().split() if line[0] == "0"
        )
        joined = hierarchies()[0] / cgroup.lstrip("/") / "cgroup.procs"
        enter = ["nsenter", f"--target={container}", "--net", "--mount"]
        return subprocess.Popen(["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(joined), *enter, *argv], **popen)


def arguments_of(process: int) -> list[str]:
    """The arguments that the process was started with; none if it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_text().split("\0")[:-1]
    except OSError:
        return []


def _program(process: int) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text().strip()
    except OSError:
        return ""
