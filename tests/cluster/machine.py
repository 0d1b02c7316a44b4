"""One node of a cluster, in namespaces and cgroups of its own: containerd with runc, the kubelet and kube-proxy.

Pods get IPv4 and IPv6 addresses by a CNI plugin. The kubelet tells Pods that the cluster's DNS is at CLUSTER_DNS, but
nothing answers there unless a test deploys it. Node (tests.cluster.node) is a cluster with only one, Cluster
(tests.cluster.nodes) has several.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from tests.cluster import binaries, images
from tests.cluster.api import Api
from tests.cluster.control_plane import NODE_SECONDS, Manifest, WholeControlPlane
from tests.cluster.leftovers import hierarchies
from tests.cluster.progress import run
from tests.cluster.sandbox import Sandbox, wait_for

POD_RANGES = "10.244.0.0/16,fd00:244::/96"
"""Of all nodes."""
CLUSTER_DNS = "10.96.0.10"
CLUSTER_DOMAIN = "cluster.local"
CONTAINERD = "/run/containerd/containerd.sock"
Cni = Literal["bridge", "ptp"]
Proxy = Literal["nftables", "iptables-nft", "iptables-legacy"]
"""Mode of kube-proxy; its mode `iptables` depends on which of two kinds of rules the program `iptables` makes."""


@dataclass(frozen=True)
class Place:
    """Where a node is in the network of all nodes, by its number from 1 to 99."""

    number: int

    @property
    def address(self) -> str:
        return f"10.90.0.{self.number}"

    @property
    def address6(self) -> str:
        return f"fd00:90::{self.number}"

    @property
    def pods(self) -> str:
        return f"10.244.{self.number}.0/24"

    @property
    def pods6(self) -> str:
        return f"fd00:244::{self.number}:0/112"


GATEWAY = Place(254)
"""The nodes' default gateway. In a Cluster the control plane has this address; for a single node no host has it."""
UPSTREAM_DNS = Place(1).address
"""The resolver that the nodes' own /etc/resolv.conf names. Nothing listens there unless a test starts it."""


class Machine:
    """`plane` is the control plane that the node belongs to, whose API this class offers, too."""

    _lease_seconds = 40
    """How long the kubelet's Lease is valid; it is renewed four times as often."""

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
        self.plane = plane
        self.sandbox = sandbox
        self.folder = sandbox.folder
        self.netns = sandbox.netns
        self.cgroup = sandbox.cgroup
        self.node_name = name
        self.place = place
        self.switch_port = f"node{place.number}"
        """The other end of the node's interface, which is called node0."""
        self.cni, self.proxy = cni, proxy
        self.kubeconfig = plane.kubeconfig
        self.resolv_conf = self.folder / "resolv.conf"
        """Becomes /etc/resolv.conf of Pods with dnsPolicy Default, such as the cluster's DNS. Read when a Pod
        starts."""

    @property
    def api(self) -> Api:
        return self.plane.api

    def kubectl(
        self,
        *args: str,
        input: str | None = None,  # noqa: A002  (subprocess.run's name)
        check: bool = True,
        kubeconfig: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        return self.plane.kubectl(*args, input=input, check=check, kubeconfig=kubeconfig)

    def kubectl_command(self, *args: str, kubeconfig: Path | None = None) -> list[str]:
        return self.plane.kubectl_command(*args, kubeconfig=kubeconfig)

    def apply(self, manifests: str | Manifest | Sequence[Manifest], *, server_side: bool = False) -> None:
        self.plane.apply(manifests, server_side=server_side)

    def wait(self, condition: str, seconds: float, *what: str) -> None:
        self.plane.wait(condition, seconds, *what)

    def api_has(self, path: str) -> bool:
        return self.plane.api_has(path)

    def start_machine(self, *, switch: str = "", neighbours: Sequence[Place] = ()) -> None:
        """Starts what a node runs; it registers itself with the API server. `switch` is the network namespace with the
        bridge `nodes`, to which the node is connected; without it, it is connected to nobody."""
        self._open_network(switch, neighbours)
        self.resolv_conf.write_text(f"nameserver {UPSTREAM_DNS}\n")
        self._start_containerd()
        self._start_kube_proxy()
        self._start_kubelet()

    def _open_network(self, switch: str, neighbours: Sequence[Place]) -> None:
        """Gives the node an address other than loopback, routes, and forwarding."""
        place = self.place
        peer = self.switch_port
        other = f"-n {switch or self.netns}"
        for arguments in (
            f"-n {self.netns} link add node0 type veth peer name {peer} netns {switch or self.netns}",
            f"-n {self.netns} addr add {place.address}/24 dev node0",
            f"-n {self.netns} addr add {place.address6}/64 dev node0 nodad",
            *([f"{other} link set {peer} master nodes"] if switch else []),
            f"{other} link set {peer} up",
            f"-n {self.netns} link set node0 up",
            f"-n {self.netns} route add default via {GATEWAY.address} dev node0",
            f"-n {self.netns} -6 route add default via {GATEWAY.address6} dev node0",
            *(line for each in neighbours if each != place for line in routes_to(self.netns, each)),
        ):
            run("ip", *arguments.split())
        settings = ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]
        # A Service's Pod may answer a Pod on the same bridge. Without these settings that answer would bypass the rules
        # that translate it back.
        settings += ["net.bridge.bridge-nf-call-iptables=1", "net.bridge.bridge-nf-call-ip6tables=1"]
        run(*self.sandbox.enter(mounts=False), "sysctl", "--quiet", "--write", *settings)
        ranges = [[{"subnet": place.pods}], [{"subnet": place.pods6}]]
        ipam = {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}
        plugins: dict[Cni, Manifest] = {
            "bridge": {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": ipam},
            "ptp": {"type": "ptp", "ipam": ipam},  # a route to each Pod, as kindnet has it
        }
        network = {
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [plugins[self.cni], {"type": "portmap", "capabilities": {"portMappings": True}}],
        }
        (self.folder / "cni").mkdir(exist_ok=True)
        (self.folder / "cni" / "10-pods.conflist").write_text(json.dumps(network))

    def _start_containerd(self) -> None:
        config = self.folder / "containerd.toml"
        config.write_text(f"""
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
    "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
    "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
address = "{CONTAINERD}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{images.PAUSE}"
restrict_oom_score_adj = true  # lowering a score needs CAP_SYS_RESOURCE, which not every root has
disable_tcp_service = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{self.folder}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
""")
        self.sandbox.daemon("containerd", "containerd", "--config", config)
        wait_for(
            self._containerd_answers, lambda: f"containerd answers\n{self.sandbox.logs('containerd')}", NODE_SECONDS
        )
        if images.PAUSE not in self.images():
            self.load_image(images.pause())

    def _containerd_answers(self) -> bool:
        return subprocess.run(self._ctr("version"), capture_output=True, check=False).returncode == 0

    def _start_kube_proxy(self) -> None:
        config = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": self.proxy.partition("-")[0],
            "hostnameOverride": self.node_name,
            "clientConnection": {"kubeconfig": str(self.kubeconfig)},
            "clusterCIDR": POD_RANGES,
            # These settings are the whole machine's, so kube-proxy must leave them.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "nftables": {"syncPeriod": "30s", "minSyncPeriod": "100ms"},
            "iptables": {"syncPeriod": "30s", "minSyncPeriod": "100ms"},
        }
        written = self._write("kube-proxy", config)
        self._daemon("kube-proxy", binaries.kubernetes("kube-proxy"), f"--config={written}")

    def _daemon(self, name: str, *argv: str | Path) -> None:
        """Starts what may call iptables. Debian has two, which are chosen by the name of a link."""
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
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},  # only the node's own processes can reach its port
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": "/" if self.sandbox.own_cgroups else f"/{self.sandbox.id}",
            "failCgroupV1": False,
            "localStorageCapacityIsolation": False,
            "containerRuntimeEndpoint": f"unix://{CONTAINERD}",
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,  # an image that it removes could not be pulled again
            "resolvConf": str(self.resolv_conf),
            "clusterDNS": [CLUSTER_DNS],
            "clusterDomain": CLUSTER_DOMAIN,
            "syncFrequency": "10s",
            "nodeLeaseDurationSeconds": self._lease_seconds,
            "nodeStatusUpdateFrequency": f"{self._lease_seconds // 4}s",
            "nodeStatusReportFrequency": "5m",  # unless there is something new
            "registerNode": True,
            "maxPods": 200,
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
        if check and done.returncode:
            error = subprocess.CalledProcessError(done.returncode, command, stdout, stderr)
            error.add_note(stdout + stderr)
            raise error
        return done

    def forget_udp(self) -> None:
        """Clears connection tracking of UDP. For half a minute it refuses a port to one way that another has just used,
        or sends it the other way. TCP's stays: without its entry, the agent's connection to the Service of the API
        server would be silent."""
        self.run("conntrack", "--delete", "--proto", "udp", check=False)  # it fails if there is no entry

    def host_process(self, argv: Sequence[str | Path], **popen: Any) -> subprocess.Popen[Any]:
        """Starts a process of the node itself, like `run`. It is killed with the node."""
        return self.sandbox.spawn(argv, cgroup="host", **popen)

    def path(self, inside: str) -> Path:
        """Translates a path of the node's mount namespace (`/sys/fs/bpf/...`, `/run/...`) for use from outside it."""
        return self.sandbox.path(inside)

    def exec(
        self, pod: str, *command: str, namespace: str = "default", container: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """`kubectl exec`."""
        chosen = ["-c", container] if container else []
        return self.kubectl("exec", "-n", namespace, pod, *chosen, "--", *command, check=check)

    def wait_pod_ready(self, pod: str, *, namespace: str = "default", seconds: float = 60) -> None:
        """The Pod may not exist yet. An error carries what `kubectl describe` says."""
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}"
        try:
            wait_for(lambda: self.api_has(path), f"Pod {pod} exists", seconds)
            self.wait("condition=Ready", seconds, f"pod/{pod}", "-n", namespace)
        except (TimeoutError, subprocess.CalledProcessError) as error:
            error.add_note(self.kubectl("describe", "pod", pod, "-n", namespace, check=False).stdout[-3000:])
            raise

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
        """The processes of the Pod, without that of its sandbox: id -> name of the program. Empty while none runs."""
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
        but not by way of the API server. Its id is that of the program itself."""
        container = next(iter(self.processes(pod)))
        (cgroup,) = (
            line.removeprefix("0::") for line in Path(f"/proc/{container}/cgroup").read_text().split() if line[0] == "0"
        )
        joined = hierarchies()[0] / cgroup.lstrip("/") / "cgroup.procs"
        enter = ["nsenter", f"--target={container}", "--net", "--mount"]
        return subprocess.Popen(["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(joined), *enter, *argv], **popen)

    def delete_pod(self, pod: str, *, namespace: str = "default") -> None:
        """Deletes the Pod with the shortest grace period. Returns when the API no longer has it."""
        with suppress(subprocess.CalledProcessError):
            self.kubectl("delete", "pod", pod, "-n", namespace, "--grace-period=1", "--ignore-not-found")


def _program(process: int) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text().strip()
    except OSError:
        return ""


def routes_to(netns: str, place: Place) -> list[str]:
    """Arguments of `ip` that route a node's Pods by way of that node."""
    return [
        f"-n {netns} route add {place.pods} via {place.address}",
        f"-n {netns} -6 route add {place.pods6} via {place.address6}",
    ]
