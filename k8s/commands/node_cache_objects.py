"""The new objects for a DaemonSet of NodeLocal DNSCache: a cache on the Pod network, and policies for it. Pure.

The new DaemonSet has another name and another label, so that old and new caches run side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy

from config.domain.ids import PolicyKind
from k8s.commands.node_cache import DNS_SERVICE, SUFFIX, ConfigMap, NodeCache
from k8s.commands.pod_template import arguments_of, labels_of, mappings
from k8s.objects.addresses import read_address
from k8s.objects.documents import Document
from k8s.objects.policy import API_VERSION
from k8s.objects.raw import Raw, raw_metadata

_LABEL = "k8s-app"
_DNS_PORTS = (("dns", "UDP"), ("dns-tcp", "TCP"))
_SETUP_FLAGS = ("setupinterface", "setupiptables", "setupebtables", "skipteardown")
"""Flags of node-cache that change the node."""


def new_objects(cache: NodeCache, others: Sequence[Document]) -> tuple[Raw, ...]:
    """`others`: the other objects of the files."""
    services = [each.raw for each in others if each.kind == "Service" and _is_metrics_service(cache, each.raw)]
    return (
        *(_config_map(cache, each) for each in cache.config_maps),
        _daemon_set(cache),
        *(_metrics_service(cache, each) for each in services),
        *_policies(cache),
    )


def _config_map(cache: NodeCache, old: ConfigMap) -> Raw:
    metadata = {"name": old.name + SUFFIX, "namespace": cache.namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": old.data}


def _daemon_set(cache: NodeCache) -> Raw:
    old = cache.daemon_set["spec"]
    template = deepcopy(old["template"])
    labels = {**labels_of(template), _LABEL: cache.new_name}
    pod = template["spec"]
    for name in ("hostNetwork", "serviceAccountName", "serviceAccount"):
        pod.pop(name, None)
    pod["automountServiceAccountToken"] = False
    changed = {each.name for each in cache.config_maps}
    gone: list[object] = []
    for volume in mappings(pod.get("volumes")):
        config_map, host_path = volume.get("configMap"), volume.get("hostPath")
        if isinstance(config_map, dict) and str(config_map.get("name")) in changed:
            config_map["name"] = f"{config_map['name']}{SUFFIX}"
        if isinstance(host_path, dict) and "xtables" in str(host_path.get("path")):
            gone.append(volume.get("name"))
    pod["volumes"] = [each for each in mappings(pod.get("volumes")) if each.get("name") not in gone]
    for container in mappings(pod.get("containers")):
        _leave_the_node_alone(container, gone)
    metadata = {"labels": labels}
    if annotations := raw_metadata(template).get("annotations"):
        metadata["annotations"] = annotations
    spec = {
        "selector": {"matchLabels": {_LABEL: cache.new_name}},
        **{name: old[name] for name in ("updateStrategy", "minReadySeconds") if name in old},
        "template": {"metadata": metadata, "spec": pod},
    }
    named = {"name": cache.new_name, "namespace": cache.namespace, "labels": {_LABEL: cache.new_name}}
    return {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": named, "spec": spec}


def _leave_the_node_alone(container: Raw, gone: list[object]) -> None:
    """Removes from a container all that it uses to change the node. `gone`: names of the volumes that were removed."""
    kept = [each for each in arguments_of(container) if each.lstrip("-").partition("=")[0] not in _SETUP_FLAGS]
    container["args"] = [*kept, "-setupinterface=false", "-setupiptables=false", "-skipteardown=true"]
    container.pop("securityContext", None)
    container["volumeMounts"] = [
        each for each in mappings(container.get("volumeMounts")) if each.get("name") not in gone
    ]
    for port in mappings(container.get("ports")):
        port.pop("hostPort", None)  # the API server adds it to Pods on the host network
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(name)
        if isinstance(probe, dict) and isinstance(probe.get("httpGet"), dict):
            probe["httpGet"].pop("host", None)


def _is_metrics_service(cache: NodeCache, service: Raw) -> bool:
    """Whether the Service is headless and selects the Pods of the old DaemonSet."""
    spec = service.get("spec")
    if not isinstance(spec, dict) or spec.get("clusterIP") != "None":
        return False
    selector = spec.get("selector")
    labels = labels_of(cache.daemon_set["spec"]["template"])
    return isinstance(selector, dict) and bool(selector) and all(labels.get(key) == selector[key] for key in selector)


def _metrics_service(cache: NodeCache, old: Raw) -> Raw:
    metadata = raw_metadata(old)
    kept = {"annotations": metadata["annotations"]} if metadata.get("annotations") else {}
    named = {"name": str(metadata.get("name")) + SUFFIX, "namespace": cache.namespace}
    labels = {"labels": {_LABEL: cache.new_name}}
    spec = {
        "clusterIP": "None",
        "selector": {_LABEL: cache.new_name},
        "ports": [
            {key: port[key] for key in ("name", "port", "protocol", "targetPort") if key in port}
            for port in mappings(old["spec"].get("ports"))
        ],
    }
    return {"apiVersion": "v1", "kind": "Service", "metadata": {**named, **labels, **kept}, "spec": spec}


def _policies(cache: NodeCache) -> Iterator[Raw]:
    """One for the Service of the cluster's DNS, and one for each link-local address."""
    service = {"serviceName": DNS_SERVICE, "namespace": cache.namespace, "toPorts": _ports()}
    yield _policy(cache, cache.name, {"serviceMatcher": service})
    for text in cache.local_addresses:
        address = read_address(text)
        if address is not None and address.is_link_local:
            name = f"{cache.name}-{text.replace(':', '-').replace('.', '-')}"
            yield _policy(cache, name, {"addressMatcher": {"ip": text, "toPorts": _ports()}})


def _policy(cache: NodeCache, name: str, frontend: Raw) -> Raw:
    backend = {
        "namespace": cache.namespace,
        "endpointSelector": {"matchLabels": {_LABEL: cache.new_name}},
        "toPorts": _ports(),
        # The default asks for the root's name servers, and a cluster without the Internet would not answer in time.
        "healthCheck": {"dns": {"name": f"kubernetes.default.svc.{cache.domain}", "type": "A"} if cache.domain else {}},
    }
    kind = str(PolicyKind.LOCAL_REDIRECT)
    spec = {"frontend": frontend, "backend": backend}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def _ports() -> list[Raw]:
    return [{"port": 53, "protocol": protocol, "name": name} for name, protocol in _DNS_PORTS]
