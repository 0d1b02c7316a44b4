"""The cluster's DNS as kubeadm installs it, its upstream, a client, and the node-local cache of our example."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster import images
from tests.cluster.binaries import ROOT, coredns
from tests.cluster.control_plane import Manifest
from tests.cluster.machine import Machine
from tests.cluster.places import CLUSTER_DNS, UPSTREAM_DNS

EXAMPLE = ROOT / "k8s" / "examples" / "node-local-dns"
CACHE = "node-local-dns"
POLICY = "node-local-dns"
NAME = "kubernetes.default.svc.cluster.local"
COREFILE = """.:53 {
    errors
    health {
        lameduck 3s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa
    forward . /etc/resolv.conf
    cache 5
}
"""
UPSTREAM_COREFILE = f""".:53 {{
    bind {UPSTREAM_DNS}
    template IN ANY upstream.test {{
        answer "{{{{ .Name }}}} 60 IN A 198.51.100.1"
    }}
}}
"""
LIBCS = ("musl", "glibc")


def cluster_dns() -> list[Manifest]:
    """The Service kube-dns and CoreDNS behind it, with the rights that it needs."""
    group = "rbac.authorization.k8s.io"
    rule = {"apiGroups": ["", "discovery.k8s.io"], "resources": ["*"], "verbs": ["list", "watch"]}
    role = {"apiGroup": group, "kind": "ClusterRole", "name": "coredns"}
    labels = {"k8s-app": "kube-dns"}
    named = {"name": "coredns", "namespace": "kube-system"}
    container = {
        "name": "coredns",
        "image": images.COREDNS,
        "imagePullPolicy": "Never",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        # As kubeadm has it. Without a request it would hardly run beside an agent that compiles.
        "resources": {"requests": {"cpu": "100m", "memory": "70Mi"}},
    }
    pod_spec = {
        "serviceAccountName": "coredns",
        "dnsPolicy": "Default",
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    }
    template = {"metadata": {"labels": labels}, "spec": pod_spec}
    service_spec = {
        "clusterIP": CLUSTER_DNS,
        "selector": labels,
        "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        ],
    }
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named},
        {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": "coredns"}, "rules": [rule]},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "coredns"},
            "roleRef": role,
            "subjects": [{"kind": "ServiceAccount", **named}],
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": named, "data": {"Corefile": COREFILE}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": named,
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
        },
        {"apiVersion": "v1", "kind": "Service", "metadata": {**named, "name": "kube-dns"}, "spec": service_spec},
    ]


def client(name: str) -> Manifest:
    """A Pod with the lookup programs of both C libraries."""
    container = {
        "name": "main",
        "image": images.LOOKUP,
        "imagePullPolicy": "Never",
        "command": ["sleep", "infinity"],
        "resources": {"requests": {"cpu": "100m"}},  # so that its load comes on time
    }
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


@contextmanager
def upstream(node: Machine) -> Iterator[None]:
    """Runs the node's own resolver, which the cluster's DNS asks for names outside the cluster."""
    corefile = node.folder / "Corefile"
    corefile.write_text(UPSTREAM_COREFILE)
    process = node.host_process([coredns(), "-conf", corefile], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def deploy(node: Machine) -> None:
    """Runs the cluster's DNS and a client, the Pod `resolver`. Returns when both are Ready."""
    node.apply([*cluster_dns(), client("resolver")])
    node.kubectl("rollout", "status", "deployment/coredns", "-n", "kube-system", "--timeout=60s")
    node.wait_pod_ready("resolver")


def apply_example(node: Machine) -> None:
    """Applies k8s/examples/node-local-dns as it stands. Returns when the cache is Ready."""
    for path in sorted(EXAMPLE.glob("*.yaml")):
        node.apply(path.read_text())
    node.kubectl("rollout", "status", f"daemonset/{CACHE}", "-n", "kube-system", "--timeout=60s")
