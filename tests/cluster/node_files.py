"""The configuration of a node's containerd, kube-proxy, kubelet and CNI plugins, as far as all kinds of nodes share it.
Pure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from tests.cluster import images
from tests.cluster.control_plane import Manifest
from tests.cluster.places import CLUSTER_DNS, CLUSTER_DOMAIN, POD_RANGES, Place

CONTAINERD = "/run/containerd/containerd.sock"
Cni = Literal["bridge", "ptp"]
SYSCTLS = (
    "net.ipv4.ip_forward=1",
    "net.ipv6.conf.all.forwarding=1",
    # A Service's Pod may answer a Pod on the same bridge. Without these settings that answer would bypass the rules
    # that translate it back.
    "net.bridge.bridge-nf-call-iptables=1",
    "net.bridge.bridge-nf-call-ip6tables=1",
)
"""For `sysctl --write`."""


def pod_network(place: Place, cni: Cni) -> str:
    """A configuration for CNI, as the file `*.conflist`."""
    ranges = [[{"subnet": place.pods}], [{"subnet": place.pods6}]]
    ipam = {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}
    plugins: dict[Cni, Manifest] = {
        "bridge": {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": ipam},
        "ptp": {"type": "ptp", "ipam": ipam},  # a route to each Pod, as kindnet has it
    }
    network = {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [plugins[cni], {"type": "portmap", "capabilities": {"portMappings": True}}],
    }
    return json.dumps(network)


def containerd(cni_folder: Path, *, systemd: bool, cri: str = "") -> str:
    """containerd.toml. `systemd` says who manages the cgroups of containers. `cri` are further lines for its section
    of the plugin that the kubelet talks to."""
    return f"""
version = 2
disabled_plugins = [
    "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
    "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
address = "{CONTAINERD}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{images.PAUSE}"
disable_tcp_service = true
{cri}
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{cni_folder}"
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = {str(systemd).lower()}
"""


def kube_proxy(node: str, kubeconfig: Path, mode: str) -> Manifest:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode,
        "hostnameOverride": node,
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": POD_RANGES,
        # These settings are the whole machine's, so kube-proxy must leave them alone.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "nftables": {"syncPeriod": "30s", "minSyncPeriod": "100ms"},
        "iptables": {"syncPeriod": "30s", "minSyncPeriod": "100ms"},
    }


def kubelet(resolv_conf: Path, *, lease_seconds: int) -> Manifest:
    """Without the settings for cgroups. The kubelet renews its Lease four times within `lease_seconds`."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},  # only the node's own processes can reach its port
        "localStorageCapacityIsolation": False,
        "containerRuntimeEndpoint": f"unix://{CONTAINERD}",
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,  # an image that it removes could not be pulled again
        "resolvConf": str(resolv_conf),
        "clusterDNS": [CLUSTER_DNS],
        "clusterDomain": CLUSTER_DOMAIN,
        "syncFrequency": "10s",
        "nodeLeaseDurationSeconds": lease_seconds,
        "nodeStatusUpdateFrequency": f"{lease_seconds // 4}s",
        "nodeStatusReportFrequency": "5m",  # unless there is something new
        "registerNode": True,
        "maxPods": 200,
    }
