"""Three ways of serving the lookups of a node's Pods, each with the server that the faults happen to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.losses.bed import IMAGE, MEMORY_LIMIT, Bed, coredns_volume
from tests.cluster import dns
from tests.cluster.control_plane import Manifest
from tests.cluster.installation import Installation
from tests.cluster.node_view import is_ready
from tests.cluster.places import CLUSTER_DNS
from tests.lab.processes import wait_until

NAMESPACE = "kube-system"
LOCAL_ADDRESS = "169.254.20.10"
NODE_CACHE = "node-cache"
SECONDS = 90


class Way:
    """A way of serving lookups. It is in use within `deployed`."""

    name: str
    heading: str
    workload: str
    """What the server's Pods belong to, as `kind/name`."""
    selector: str
    installation: Installation | None = None
    """The agent's, if the way has one."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self.node = bed.node

    @contextmanager
    def deployed(self) -> Iterator[None]:
        yield

    def _all_pods(self) -> list[Manifest]:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector={self.selector.replace('=', '%3D')}"
        found: list[Manifest] = self.node.api.get(path)["items"]
        return found

    def pods(self) -> list[Manifest]:
        """The server's Pods, without those that are being deleted."""
        return [pod for pod in self._all_pods() if "deletionTimestamp" not in pod["metadata"]]

    def server(self) -> str:
        """The Pod that the fault happens to."""
        return str(min(pod["metadata"]["name"] for pod in self.pods()))

    def process(self, pod: str) -> int:
        """The id of the process of CoreDNS in one of these Pods."""
        return self.node.process_of(pod, "coredns", namespace=NAMESPACE)

    def restart(self) -> None:
        self.node.kubectl("rollout", "restart", self.workload, "-n", NAMESPACE)
        self.wait_whole()

    def wait_whole(self) -> None:
        """Awaits that everything that belongs to the way is as it was before any fault."""
        self.node.kubectl("rollout", "status", self.workload, "-n", NAMESPACE, f"--timeout={SECONDS}s")
        wait_until(self._all_ready, f"all Pods of {self.workload} are Ready, and no others are left", SECONDS)
        wait_until(self.bed.answered, "lookups are answered", SECONDS)

    def _all_ready(self) -> bool:
        return all(map(is_ready, self._all_pods()))

    def renew(self) -> None:
        """Replaces Pods in which a container was restarted, since the kubelet would wait before the next restart."""
        restarted = [pod for pod in self.pods() if any(each["restartCount"] for each in container_statuses(pod))]
        for pod in restarted:
            self.node.kubectl("delete", "pod", pod["metadata"]["name"], "-n", NAMESPACE, "--wait=true")
        self.wait_whole()


class KubeProxy(Way):
    """No cache: kube-proxy leads to the cluster's DNS. The fault happens to one of its two Pods."""

    name = "kube-proxy"
    heading = "kube-proxy alone, two servers"
    workload = "deployment/coredns"
    selector = "k8s-app=kube-dns"


class NodeLocal(Way):
    """NodeLocal DNSCache's way, by image/node-cache and its public manifest (kubernetes/kubernetes,
    cluster/addons/dns/nodelocaldns), with a memory limit, which its documentation recommends."""

    name = "nodelocal"
    heading = "NodeLocal DNSCache's way, re-staged"
    workload = f"daemonset/{NODE_CACHE}"
    selector = f"app={NODE_CACHE}"

    @contextmanager
    def deployed(self) -> Iterator[None]:
        self.node.apply(_upstream_service())
        service = self.node.api.get(f"/api/v1/namespaces/{NAMESPACE}/services/kube-dns-upstream")
        self.node.apply(_node_cache(service["spec"]["clusterIP"]))
        self.wait_whole()
        yield
        self.node.kubectl(
            "delete", self.workload, f"configmap/{NODE_CACHE}", "service/kube-dns-upstream", "-n", NAMESPACE
        )
        wait_until(lambda: not self.pods() and not self._is_set_up(), "its rules are taken away", SECONDS)

    def _is_set_up(self) -> bool:
        rules = self.node.run("iptables-save", "-t", "raw").stdout
        return f"-d {CLUSTER_DNS}/32 -p udp" in rules

    def wait_whole(self) -> None:
        super().wait_whole()
        wait_until(self._is_set_up, "its rules are there", SECONDS)


class Ours(Way):
    """k8s/install.yaml and k8s/examples/node-local-dns, as they stand."""

    name = "ours"
    heading = "LocalRedirect"
    workload = f"daemonset/{dns.CACHE}"
    selector = f"app={dns.CACHE}"
    installation: Installation

    def __init__(self, bed: Bed) -> None:
        super().__init__(bed)
        self.installation = Installation(bed.node)

    @contextmanager
    def deployed(self) -> Iterator[None]:
        self.installation.apply()
        dns.apply_example(self.node)
        self.wait_whole()
        yield

    def wait_whole(self) -> None:
        super().wait_whole()
        self.installation.wait_ready()
        self.installation.wait_state(dns.POLICY, "Active")


WAYS: tuple[type[Way], ...] = (KubeProxy, NodeLocal, Ours)


def container_statuses(pod: Manifest) -> list[Manifest]:
    found: list[Manifest] = pod["status"].get("containerStatuses", [])
    return found


def _upstream_service() -> Manifest:
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    spec = {"selector": {"k8s-app": "kube-dns"}, "ports": ports}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns-upstream", "namespace": NAMESPACE},
        "spec": spec,
    }


def _node_cache(upstream: str) -> list[Manifest]:
    """The manifest's objects and zones, but no zones for reverse lookups, since nobody makes such lookups here."""
    common = f"    errors\n    reload\n    loop\n    bind {LOCAL_ADDRESS} {CLUSTER_DNS}\n    prometheus :9253\n"
    corefile = (
        f"cluster.local:53 {{\n{common}    cache {{\n        success 9984 30\n        denial 9984 5\n    }}\n"
        f"    forward . {upstream} {{\n        force_tcp\n    }}\n    health {LOCAL_ADDRESS}:8080\n}}\n"
        f".:53 {{\n{common}    cache 30\n    forward . /etc/resolv.conf\n}}\n"
    )
    named = {"name": NODE_CACHE, "namespace": NAMESPACE}
    volume, mount = coredns_volume()
    container = {
        "name": NODE_CACHE,
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["node-cache"],
        "resources": {"requests": {"cpu": "25m", "memory": "5Mi"}, "limits": {"memory": MEMORY_LIMIT}},
        "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}},
        "livenessProbe": {
            "httpGet": {"host": LOCAL_ADDRESS, "path": "/health", "port": 8080},
            "initialDelaySeconds": 60,
            "timeoutSeconds": 5,
        },
        "volumeMounts": [mount, {"name": "config", "mountPath": "/etc/coredns"}],
    }
    spec = {
        "priorityClassName": "system-node-critical",
        "hostNetwork": True,
        "dnsPolicy": "Default",
        "tolerations": [{"operator": "Exists"}],
        "containers": [container],
        "volumes": [volume, {"name": "config", "configMap": {"name": NODE_CACHE}}],
    }
    labels = {"app": NODE_CACHE}
    daemon_set = {
        "updateStrategy": {"rollingUpdate": {"maxUnavailable": "10%"}},
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": spec},
    }
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": named, "data": {"Corefile": corefile}},
        {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": named, "spec": daemon_set},
    ]
