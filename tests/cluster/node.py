"""A complete single-node Kubernetes, in namespaces and cgroups of its own (tests.cluster.sandbox).

    with Node() as node:
        node.load_image(images.busybox())
        node.apply(...)
        node.wait_pod_ready("client")
        node.exec("client", "wget", "-O-", "http://server")

Beside the control plane it runs controller-manager, scheduler, containerd with runc, the kubelet and kube-proxy
(nftables). Pods get IPv4 and IPv6 addresses on a bridge, and Services have both families. The kubelet tells Pods that
the cluster's DNS is at CLUSTER_DNS, but nothing answers there unless a test deploys it.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import binaries, images
from tests.cluster.control_plane import ControlPlane, Manifest
from tests.cluster.leftovers import hierarchies
from tests.cluster.progress import run
from tests.cluster.sandbox import wait_for

NODE_NAME = "node"
NODE_ADDRESS = "10.90.0.1"
NODE_ADDRESS6 = "fd00:90::1"
POD_RANGE = "10.244.0.0/16"
POD_RANGE6 = "fd00:244::/112"
CLUSTER_DNS = "10.96.0.10"
CLUSTER_DOMAIN = "cluster.local"
UPSTREAM_DNS = NODE_ADDRESS
"""The resolver that the node's own /etc/resolv.conf names. Nothing listens there unless a test starts it."""
CONTAINERD = "/run/containerd/containerd.sock"
NODE_SECONDS = 120.0


class Node(ControlPlane):
    """Context manager. ControlPlane has the API server's part; here `url` and `port` are valid in the node's
    namespace."""

    _namespaces = True
    _addresses = ("127.0.0.1", "10.96.0.1", "fd00:96::1", NODE_ADDRESS, NODE_ADDRESS6)

    def __init__(self, *, apiserver_flags: Sequence[str] = ()) -> None:
        super().__init__(apiserver_flags=apiserver_flags)
        self._pause = images.pause()
        self.netns = self.sandbox.netns
        self.cgroup = self.sandbox.cgroup
        self._controllers: list[subprocess.Popen[bytes]] = []
        self.node_name = NODE_NAME
        self.resolv_conf = self.folder / "resolv.conf"
        """Becomes /etc/resolv.conf of Pods with dnsPolicy Default, such as the cluster's DNS. Read when a Pod
        starts."""

    def _choose_ports(self) -> tuple[int, int, int]:
        return 6443, 2379, 2380  # the namespace is the node's own

    def _placement_flags(self) -> list[str]:
        return [f"--advertise-address={NODE_ADDRESS}", "--kubelet-preferred-address-types=InternalIP"]

    def _start(self) -> None:
        super()._start()
        self._open_network()
        self._make_cgroups()
        self.resolv_conf.write_text(f"nameserver {UPSTREAM_DNS}\n")
        self._start_containerd()
        self._start_controllers()
        self._start_kube_proxy()
        self._start_kubelet()
        node = f"node/{self.node_name}"
        wait_for(
            lambda: self.api_has(f"/api/v1/nodes/{self.node_name}"),
            lambda: f"{node} is known\n{self.logs('kubelet')}",
            NODE_SECONDS,
        )
        self.wait("condition=Ready", NODE_SECONDS, node)
        # Pods can't be created before the controller has created this.
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        wait_for(lambda: self.api_has(account), "the service account `default` is there", NODE_SECONDS)

    def api_has(self, path: str) -> bool:
        return self.api.raw("GET", path)[0] == 200

    def _open_network(self) -> None:
        """Gives the node an address other than loopback, a default route, and forwarding."""
        for arguments in (
            "link add node0 type veth peer name node1",
            f"addr add {NODE_ADDRESS}/24 dev node0",
            f"addr add {NODE_ADDRESS6}/64 dev node0 nodad",
            "link set node1 up",
            "link set node0 up",
            f"route add default via {NODE_ADDRESS.rpartition('.')[0]}.254 dev node0",
            f"-6 route add default via {NODE_ADDRESS6[:-1]}fe dev node0",
        ):
            run("ip", "-n", self.netns, *arguments.split())
        settings = ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]
        # A Service's Pod may answer a Pod on the same bridge. Without these settings that answer would bypass the rules
        # that translate it back.
        settings += ["net.bridge.bridge-nf-call-iptables=1", "net.bridge.bridge-nf-call-ip6tables=1"]
        run(*self.sandbox.enter(mounts=False), "sysctl", "--quiet", "--write", *settings)
        (self.folder / "cni").mkdir()
        ranges = [[{"subnet": POD_RANGE}], [{"subnet": POD_RANGE6}]]
        bridge = {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "hairpinMode": True,
            "ipam": {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]},
        }
        network = {
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}],
        }
        (self.folder / "cni" / "10-pods.conflist").write_text(json.dumps(network))

    def _make_cgroups(self) -> None:
        """Makes the kubelet's root cgroup in every hierarchy."""
        for hierarchy in hierarchies():
            cgroup = hierarchy / self.sandbox.id
            cgroup.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):  # a new cgroup of v1 has none, and no process can run in it
                if hierarchy.name == "cpuset":
                    (cgroup / name).write_text((hierarchy / name).read_text())

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
        self.daemon("containerd", "containerd", "--config", config)
        wait_for(self._containerd_answers, lambda: f"containerd answers\n{self.logs('containerd')}", NODE_SECONDS)
        self.load_image(self._pause)

    def _containerd_answers(self) -> bool:
        return subprocess.run(self._ctr("version"), capture_output=True, check=False).returncode == 0

    def _start_controllers(self) -> None:
        common = (f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--profiling=false")
        manager = self.daemon(
            "kube-controller-manager",
            binaries.kubernetes("kube-controller-manager"),
            *common,
            f"--service-account-private-key-file={self.folder}/service-accounts.key",
            f"--root-ca-file={self.folder}/tls.crt",
            # Hollow nodes (tests.cluster.hollow) have no kubelet that renews their Lease.
            "--node-monitor-grace-period=24h",
        )
        scheduler = self.daemon("kube-scheduler", binaries.kubernetes("kube-scheduler"), *common)
        self._controllers = [manager, scheduler]

    def restart_controllers(self) -> None:
        """Restarts them after an outage of the API server: they would wait for up to a minute before their next
        attempt."""
        for each in self._controllers:
            each.kill()
            each.wait()
        self._start_controllers()

    def _start_kube_proxy(self) -> None:
        config = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "hostnameOverride": self.node_name,
            "clientConnection": {"kubeconfig": str(self.kubeconfig)},
            "clusterCIDR": f"{POD_RANGE},{POD_RANGE6}",
            # These settings are the whole machine's, so kube-proxy must leave them.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "nftables": {"syncPeriod": "30s", "minSyncPeriod": "100ms"},
        }
        self.daemon("kube-proxy", binaries.kubernetes("kube-proxy"), f"--config={self._write('kube-proxy', config)}")

    def _start_kubelet(self) -> None:
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},  # only the node's own processes can reach its port
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.sandbox.id}",
            "failCgroupV1": False,
            "localStorageCapacityIsolation": False,
            "containerRuntimeEndpoint": f"unix://{CONTAINERD}",
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,  # an image that it removes could not be pulled again
            "resolvConf": str(self.resolv_conf),
            "clusterDNS": [CLUSTER_DNS],
            "clusterDomain": CLUSTER_DOMAIN,
            "syncFrequency": "10s",
            "registerNode": True,
            "maxPods": 200,
        }
        self.daemon(
            "kubelet",
            binaries.kubernetes("kubelet"),
            f"--config={self._write('kubelet', config)}",
            f"--kubeconfig={self.kubeconfig}",
            f"--hostname-override={self.node_name}",
            f"--node-ip={NODE_ADDRESS},{NODE_ADDRESS6}",
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
