"""A Kubernetes whose only node is a virtual machine that boots systemd.

    with SystemdNode(archives) as node:
        node.apply(...)
        node.run("systemctl", "status")

The control plane runs beside the VM, in a network namespace of its own, since an emulated machine would be ten times
slower. In the VM, containerd is the service of Debian's package, and the kubelet and kube-proxy are services, too.
kube-proxy uses IPVS, which the kernels of our own machines do not support. The kubelet and runc let systemd make their
cgroups. The kubelet has no cgroup root of its own, so Pods are in /kubepods.slice. Static Pods come from STATIC_PODS.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import yaml

from tests.cluster import binaries, image_store, node_files
from tests.cluster.binaries import CACHE
from tests.cluster.control_plane import Manifest
from tests.cluster.node_files import CONTAINERD, SYSCTLS
from tests.cluster.node_view import NodeView
from tests.cluster.places import UPSTREAM_DNS, Place, addresses_of
from tests.cluster.processes import checked, run
from tests.cluster.progress import step
from tests.cluster.switched import SWITCH, SwitchedControlPlane
from tests.kernels import debian
from tests.kernels.vm import MACHINE, VirtualMachine, VirtualMachineError
from tests.systemd.tree import tree

NAME = "machine"
PLACE = Place(1)
KERNEL = "6.12-cloud"
"""The kernel that Debian 13 has in its images for clouds."""
MEGABYTES = 4096
STATIC_PODS = "/etc/kubernetes/manifests"
COMMAND_SECONDS = 1800.0
READY_SECONDS = 1800.0
"""Much longer than it takes: an emulated machine is slow, and other programs may use the processors."""
_NETWORK_MODULES = ("virtio_net", "br_netfilter", "ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_sh", "dummy")
_LAYERS = "io.containerd.snapshotter.v1.overlayfs/snapshots"
_BLOBS = "io.containerd.content.v1.content/blobs"
"""Folders of containerd (tests.cluster.image_store)."""
_UNITS = ("containerd", "kube-proxy", "kubelet")


class SystemdNode(SwitchedControlPlane, NodeView):
    """Context manager. `archives` are the images that the node has."""

    def __init__(self, archives: Sequence[Path]) -> None:
        SwitchedControlPlane.__init__(self, [PLACE])
        NodeView.__init__(self, self, NAME)
        self._archives = archives
        self._vm: VirtualMachine | None = None

    def close(self) -> None:
        if self._vm:
            self._vm.close()
            self._vm = None
        super().close()

    def _start(self) -> None:
        images = image_store.unpacked(self._archives)
        super()._start()
        self._boot(images)
        self._open_network()
        self._start_containerd(images)
        with step("starting kube-proxy and the kubelet"):
            self._start_kubernetes()
            self.wait_usable(NAME, seconds=READY_SECONDS)

    def _boot(self, images: Path) -> None:
        tap = PLACE.switch_port
        for arguments in (f"tuntap add dev {tap} mode tap", f"link set {tap} master {SWITCH}", f"link set {tap} up"):
            run("ip", "-n", self.netns, *arguments.split())
        vm = VirtualMachine(
            debian.fetch(KERNEL),
            tree=tree(),
            shown=[self.folder, CACHE.resolve(), images],
            netns=self.netns,
            tap=tap,
            megabytes=MEGABYTES,
            own_time=True,
        )
        with step("booting systemd in a virtual machine"):
            self._vm = vm.__enter__()

    def _open_network(self) -> None:
        self._script(
            f"hostname {NAME}",
            f"modprobe -a {' '.join(_NETWORK_MODULES)}",
            *(f"ip {line}" for line in addresses_of(PLACE, "eth0")),
            f"sysctl --quiet --write {' '.join(SYSCTLS)}",
            f"echo nameserver {UPSTREAM_DNS} >/etc/resolv.conf",
        )

    def _start_containerd(self, images: Path) -> None:
        self._write("/etc/cni/net.d/10-pods.conflist", node_files.pod_network(PLACE, "bridge"))
        config = node_files.containerd(Path("/etc/cni/net.d"), systemd=True)
        self._write("/etc/containerd/config.toml", config)
        with step("starting containerd"):
            self._script(
                # Containers' file systems are overlays, whose upper directories cannot be in the root, another overlay.
                "mkdir -p /var/lib/containerd",
                "mount -t tmpfs -o size=60% tmpfs /var/lib/containerd",
                f"cd {seen(images)}",
                "cp --parents */*.db /var/lib/containerd",
                f"mkdir -p /var/lib/containerd/{_LAYERS} /var/lib/containerd/{Path(_BLOBS).parent}",
                # containerd modifies neither layers nor blobs, so they stay where they are.
                f"ln -s $PWD/{_BLOBS} /var/lib/containerd/{_BLOBS}",
                f"ln -s $PWD/{_LAYERS}/* /var/lib/containerd/{_LAYERS}",
                "systemctl start containerd",
            )

    def _start_kubernetes(self) -> None:
        kubeconfig = seen(self.kubeconfig)
        kubelet = node_files.kubelet(Path("/etc/resolv.conf"), lease_seconds=40) | {
            "cgroupDriver": "systemd",
            "staticPodPath": STATIC_PODS,
        }
        proxy = node_files.kube_proxy(NAME, kubeconfig, "ipvs")
        self._write("/etc/kubernetes/kubelet.yaml", yaml.safe_dump(kubelet))
        self._write("/etc/kubernetes/kube-proxy.yaml", yaml.safe_dump(proxy))
        self._service("kube-proxy", "--config=/etc/kubernetes/kube-proxy.yaml")
        self._script(f"mkdir -p {STATIC_PODS}")
        self._service(
            "kubelet",
            "--config=/etc/kubernetes/kubelet.yaml",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={NAME}",
            f"--node-ip={PLACE.address},{PLACE.address6}",
            properties=["--property=Type=notify"],  # the call fails if the kubelet does
        )

    def _service(self, name: str, *arguments: str, properties: Sequence[str] = ()) -> None:
        program = str(seen(binaries.kubernetes(name)))
        self.run("systemd-run", f"--unit={name}", "--property=KillMode=process", *properties, program, *arguments)

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a command on the node, as root, in the cgroup of a service of systemd."""
        assert self._vm
        result = self._vm.run(list(command), seconds=COMMAND_SECONDS)
        done = subprocess.CompletedProcess(command, result.status, result.stdout, result.stderr)
        return checked(done) if check else done

    def _script(self, *lines: str) -> None:
        self.run("bash", "-euc", "\n".join(lines))

    def _write(self, path: str, text: str) -> None:
        self.run("bash", "-euc", 'mkdir -p "${0%/*}"; printf %s "$1" >"$0"', path, text)

    def fetch(self, port: int, path: str) -> str:
        return self.run("busybox", "wget", "-q", "-O-", f"http://127.0.0.1:{port}{path}").stdout

    def tag_image(self, name: str, further: str) -> None:
        """Gives an image another name as well."""
        self.run("ctr", "--address", CONTAINERD, "--namespace", "k8s.io", "images", "tag", name, further)

    def add_static_pod(self, manifest: Manifest) -> None:
        self._write(f"{STATIC_PODS}/{manifest['metadata']['name']}.json", json.dumps(manifest))

    def logs(self, *names: str, lines: int = 15) -> str:
        """The logs of the control plane, and the node's journal."""
        found = super().logs(*names, lines=lines)
        if self._vm:
            with suppress(VirtualMachineError, OSError):  # it may have ended
                for unit in _UNITS:
                    command = ("journalctl", "--no-pager", f"--lines={lines}", f"--unit={unit}")
                    found += f"\n--- {unit}\n{self.run(*command, check=False).stdout}"
        return found


def seen(path: Path) -> Path:
    """Where the node sees a file of this machine. Resolves links in the path, since `.cluster` may be one, except for
    the last part: Kubernetes's commands are links to one binary, which goes by the name of the link."""
    return MACHINE / (path.parent.resolve() / path.name).relative_to("/")
