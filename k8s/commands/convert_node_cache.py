"""The usual set-up of NodeLocal DNSCache as a cache on the Pod network and policies for it. Pure.

NodeLocal DNSCache (https://kubernetes.io/docs/tasks/administer-cluster/nodelocaldns/) is a DaemonSet on the host
network whose containers get `-localip`, the addresses that they give to an interface of the node and listen on. The
new DaemonSet has another name, so that both run side by side, and removing the policies is the way back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from config.domain.ids import PolicyKind
from config.domain.names import DNS_SUBDOMAIN
from config.input.faults import shown
from k8s.commands.conversion import Conversion, source_name
from k8s.objects.addresses import read_address
from k8s.objects.documents import Document
from k8s.objects.metadata import key_name
from k8s.objects.policy import API_VERSION

SUFFIX = "-redirected"
"""What the names of new objects end with."""
_DNS_PORTS = (("dns", "UDP"), ("dns-tcp", "TCP"))
_LABEL = "k8s-app"
_SERVICE = "kube-dns"
_SETUP_FLAGS = ("setupinterface", "setupiptables", "setupebtables", "skipteardown")
"""Flags of node-cache that change the node."""
_ZONE = re.compile(r"^([^\s{}:]+)(?::53)?\s*\{", re.MULTILINE)
"""The first zone of a server block of a Corefile."""
_PLACEHOLDER = re.compile(r"__PILLAR__[A-Z_]+__")
_FILLED_BY_NODE_CACHE = ("__PILLAR__CLUSTER__DNS__", "__PILLAR__UPSTREAM__SERVERS__")


def is_node_cache(document: Document) -> bool:
    return document.kind == "DaemonSet" and _first_flag(document, "localip") != ""


def convert_node_cache(document: Document, others: Sequence[Document]) -> Conversion:
    """`others`: the other objects of the files. Faults name the object and the field."""
    source = source_name(document)
    if not _pod_spec(document).get("hostNetwork"):
        remark = "spec.template.spec.hostNetwork: is not true, so the cache is already on the Pod network; keep it"
        return Conversion(source=source, remarks=(remark,))
    made = _NodeCache(document, others)
    objects = tuple(made.objects())
    if made.faults:
        return Conversion(source=source, faults=tuple(made.faults))
    return Conversion(source=source, objects=objects, remarks=tuple(made.remarks()))


@dataclass(slots=True)
class _NodeCache:
    """The conversion of one DaemonSet. `faults` and `remarks` are complete once all of `objects` have been taken."""

    document: Document
    others: Sequence[Document]
    faults: list[str] = field(default_factory=list)
    _placeholders: set[str] = field(default_factory=set)
    _forwards_to: set[str] = field(default_factory=set)
    _domain: str = ""
    """The cluster's domain, as the Corefile names it; "" when it does not."""

    @property
    def _name(self) -> str:
        return key_name(_metadata(self.document).get("name"))

    @property
    def _namespace(self) -> str:
        return key_name(_metadata(self.document).get("namespace")) or "default"

    @property
    def _new_name(self) -> str:
        return self._name + SUFFIX

    def _local_addresses(self) -> list[str]:
        return [each.strip() for each in _first_flag(self.document, "localip").split(",") if each.strip()]

    def objects(self) -> Iterator[Mapping[str, Any]]:
        if not DNS_SUBDOMAIN.fullmatch(self._name):
            self.faults.append(f"metadata.name: {shown(self._name)} is wrong; it must be a DNS name")
            return
        configs = self._config_maps()
        yield from configs
        yield self._daemon_set({str(each["metadata"]["name"]).removesuffix(SUFFIX) for each in configs})
        yield from (self._metrics_service(each) for each in self.others if self._is_metrics_service(each))
        yield self._policy(
            self._name, {"serviceMatcher": {"serviceName": _SERVICE, "namespace": self._namespace, "toPorts": _ports()}}
        )
        for text in self._local_addresses():
            self._note_placeholders(text)
            address = read_address(text)
            if address is not None and address.is_link_local:
                matcher = {"addressMatcher": {"ip": text, "toPorts": _ports()}}
                yield self._policy(f"{self._name}-{text.replace(':', '-').replace('.', '-')}", matcher)
            elif address is None and not _PLACEHOLDER.search(text):
                fault = f"{shown(text)} is wrong; it must be IP addresses, separated by commas"
                self.faults.append(f"spec.template.spec.containers: -localip: {fault}")

    def _config_maps(self) -> list[dict[str, Any]]:
        """Those with a Corefile, with another name and without the node's addresses."""
        found = []
        for name in self._mounted_config_maps():
            for each in self.others:
                data = each.raw.get("data")
                if each.kind != "ConfigMap" or not isinstance(data, dict) or not self._is_named(each, name):
                    continue
                changed = {key: self._corefile(value) if _is_corefile(value) else value for key, value in data.items()}
                if changed != data:
                    metadata = {"name": name + SUFFIX, "namespace": self._namespace}
                    found.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": changed})
        if not found:
            names = " or ".join(f"ConfigMap/{self._namespace}/{name}" for name in self._mounted_config_maps())
            wanted = f"{names} with a Corefile" if names else "a volume with a ConfigMap that has a Corefile"
            self.faults.append(f"spec.template.spec.volumes: the Corefile is missing; the files must have {wanted}")
        return found

    def _mounted_config_maps(self) -> list[str]:
        maps = [each.get("configMap") for each in _mappings(_pod_spec(self.document).get("volumes"))]
        return [str(each["name"]) for each in maps if isinstance(each, dict) and each.get("name")]

    def _is_named(self, other: Document, name: str) -> bool:
        metadata = _metadata(other)
        return (metadata.get("name"), metadata.get("namespace") or "default") == (name, self._namespace)

    def _corefile(self, text: str) -> str:
        """Without `bind`, CoreDNS listens at all addresses of the Pod."""
        zones = [each for each in _ZONE.findall(text) if not each.endswith(("arpa", "arpa."))]
        self._domain = next((each for each in zones if DNS_SUBDOMAIN.fullmatch(each)), self._domain)
        lines = []
        for line in text.splitlines():
            words = line.split()
            if words[:1] == ["bind"]:
                continue
            if words[:1] == ["forward"]:
                self._forwards_to |= {word for word in words[2:] if read_address(word)}
            lines.append(re.sub(r"^(\s*health)\s+\S*?(:\d+)(\s*\{)?$", r"\1 \2\3", line))
            self._note_placeholders(lines[-1])
        return "\n".join(lines) + "\n"

    def _note_placeholders(self, text: str) -> None:
        self._placeholders |= set(_PLACEHOLDER.findall(text)) - set(_FILLED_BY_NODE_CACHE)

    def _daemon_set(self, config_maps: set[str]) -> dict[str, Any]:
        raw = self.document.raw
        template = deepcopy(raw["spec"]["template"])
        labels = {**_labels(template), _LABEL: self._new_name}
        pod = template["spec"]
        for name in ("hostNetwork", "serviceAccountName", "serviceAccount"):
            pod.pop(name, None)
        pod["automountServiceAccountToken"] = False
        gone: list[object] = []
        for volume in _mappings(pod.get("volumes")):
            config_map, host_path = volume.get("configMap"), volume.get("hostPath")
            if isinstance(config_map, dict) and str(config_map.get("name")) in config_maps:
                config_map["name"] = f"{config_map['name']}{SUFFIX}"
            if isinstance(host_path, dict) and "xtables" in str(host_path.get("path")):
                gone.append(volume.get("name"))
        pod["volumes"] = [each for each in _mappings(pod.get("volumes")) if each.get("name") not in gone]
        for container in _mappings(pod.get("containers")):
            _leave_the_node_alone(container, gone)
        metadata = {"labels": labels}
        if annotations := _metadata_of(template).get("annotations"):
            metadata["annotations"] = annotations
        spec = {
            "selector": {"matchLabels": {_LABEL: self._new_name}},
            **{name: raw["spec"][name] for name in ("updateStrategy", "minReadySeconds") if name in raw["spec"]},
            "template": {"metadata": metadata, "spec": pod},
        }
        named = {"name": self._new_name, "namespace": self._namespace, "labels": {_LABEL: self._new_name}}
        return {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": named, "spec": spec}

    def _is_metrics_service(self, other: Document) -> bool:
        spec = other.raw.get("spec")
        if other.kind != "Service" or not isinstance(spec, dict) or spec.get("clusterIP") != "None":
            return False
        selector = spec.get("selector")
        wanted = _labels(self.document.raw["spec"]["template"])
        return (
            isinstance(selector, dict) and bool(selector) and all(wanted.get(key) == selector[key] for key in selector)
        )

    def _metrics_service(self, other: Document) -> dict[str, Any]:
        metadata = _metadata(other)
        kept = {"annotations": metadata["annotations"]} if metadata.get("annotations") else {}
        named = {"name": str(metadata.get("name")) + SUFFIX, "namespace": self._namespace}
        labels = {"labels": {_LABEL: self._new_name}}
        spec = {
            "clusterIP": "None",
            "selector": {_LABEL: self._new_name},
            "ports": [
                {key: port[key] for key in ("name", "port", "protocol", "targetPort") if key in port}
                for port in _mappings(other.raw["spec"].get("ports"))
            ],
        }
        return {"apiVersion": "v1", "kind": "Service", "metadata": {**named, **labels, **kept}, "spec": spec}

    def _policy(self, name: str, frontend: dict[str, Any]) -> dict[str, Any]:
        backend = {
            "namespace": self._namespace,
            "endpointSelector": {"matchLabels": {_LABEL: self._new_name}},
            "toPorts": _ports(),
            # The default asks for the root's name servers, and a cluster without the Internet would not answer in time.
            "healthCheck": {
                "dns": {"name": f"kubernetes.default.svc.{self._domain}", "type": "A"} if self._domain else {}
            },
        }
        kind = str(PolicyKind.LOCAL_REDIRECT)
        spec = {"frontend": frontend, "backend": backend}
        return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}

    def remarks(self) -> Iterator[str]:
        path = "spec.template.spec"
        yield (
            f"metadata.name: the new DaemonSet is {self._new_name} and runs beside the old one; delete the old one "
            "when the policies work, and keep it for as long as you may want to go back"
        )
        yield (
            f"{path}.hostNetwork: has no counterpart; the new cache is an ordinary Pod, which changes neither "
            "interfaces nor packet filter rules of its node, so it needs no capability and no xtables lock"
        )
        yield (
            f"{path}.containers: there is no readiness probe in the usual set-up, so the policies have a health check "
            "(spec.backend.healthCheck) that asks each cache itself"
        )
        if not self._domain:
            yield (
                "the Corefile does not name the cluster's domain; give spec.backend.healthCheck.dns a name that the "
                "cluster's DNS answers, if it cannot reach the root's name servers"
            )
        yield (
            f"the policy {self._name} assumes that the cluster's DNS is the Service {_SERVICE} in {self._namespace}, "
            "with port 53 for both protocols"
        )
        for text in self._local_addresses():
            yield from self._about_address(text)
        if upstream := self._upstream():
            yield f"-upstreamsvc: keep the Service {upstream}, which the new cache asks"
        elif self._forwards_to:
            yield (
                f"the Corefile forwards to {', '.join(sorted(self._forwards_to))}, which the new cache reaches the "
                "normal way, also if it is the address of the redirected Service"
            )
        if self._placeholders:
            yield f"fill in {', '.join(sorted(self._placeholders))} before you apply this, as in the original"
        if _pod_spec(self.document).get("serviceAccountName"):
            yield f"{path}.serviceAccountName: is left out, since the cache does not use the API"

    def _about_address(self, text: str) -> Iterator[str]:
        address = read_address(text)
        if address is None:
            yield (
                f"-localip: {text} is a placeholder; if kubelets give it to Pods as clusterDNS, and it is not the "
                f"address of {_SERVICE}, fill it in and convert again, so that it gets a policy of its own"
            )
        elif address.is_link_local:
            yield (
                f"-localip: {address} gets a policy of its own, for Pods whose kubelet names it as clusterDNS; "
                "nobody answers there once the old DaemonSet is gone and a node has no usable cache, so give kubelets "
                f"the address of {_SERVICE} again, restart such Pods, and then delete that policy"
            )
        else:
            covered = f"which the policy {self._name} covers"
            yield f"-localip: {address} should be the address of {_SERVICE}, {covered}"

    def _upstream(self) -> str:
        name = _first_flag(self.document, "upstreamsvc")
        return f"{self._namespace}/{name}" if name else ""


def _leave_the_node_alone(container: dict[str, Any], gone: list[object]) -> None:
    """Removes from a container all that it uses to change the node. `gone`: names of the volumes that were removed."""
    kept = [each for each in _arguments(container) if each.lstrip("-").partition("=")[0] not in _SETUP_FLAGS]
    container["args"] = [*kept, "-setupinterface=false", "-setupiptables=false", "-skipteardown=true"]
    container.pop("securityContext", None)
    container["volumeMounts"] = [
        each for each in _mappings(container.get("volumeMounts")) if each.get("name") not in gone
    ]
    for port in _mappings(container.get("ports")):
        port.pop("hostPort", None)  # the API server adds it to Pods on the host network
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(name)
        if isinstance(probe, dict) and isinstance(probe.get("httpGet"), dict):
            probe["httpGet"].pop("host", None)


def _ports() -> list[dict[str, Any]]:
    return [{"port": 53, "protocol": protocol, "name": name} for name, protocol in _DNS_PORTS]


def _is_corefile(value: object) -> bool:
    return isinstance(value, str) and re.search(r"^\s*(bind|forward)\s", value, re.MULTILINE) is not None


def _first_flag(document: Document, name: str) -> str:
    return next((flag for each in _containers(document) if (flag := _flag(_arguments(each), name))), "")


def _flag(arguments: Sequence[str], name: str) -> str:
    """The value of `-name VALUE` or `-name=VALUE`, with one dash or two; "" when there is none."""
    for position, each in enumerate(arguments):
        flag, has_value, value = each.lstrip("-").partition("=")
        if each.startswith("-") and flag == name:
            return value if has_value else "".join(arguments[position + 1 : position + 2])
    return ""


def _arguments(container: Mapping[str, Any]) -> list[str]:
    given = container.get("args")
    return [str(each) for each in given] if isinstance(given, list) else []


def _containers(document: Document) -> list[dict[str, Any]]:
    return _mappings(_pod_spec(document).get("containers"))


def _pod_spec(document: Document) -> dict[str, Any]:
    found: Any = document.raw
    for name in ("spec", "template", "spec"):
        found = found.get(name)
        if not isinstance(found, dict):
            return {}
    made: dict[str, Any] = found
    return made


def _metadata(document: Document) -> dict[str, Any]:
    return _metadata_of(document.raw)


def _metadata_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    found = raw.get("metadata")
    return found if isinstance(found, dict) else {}


def _labels(template: Mapping[str, Any]) -> dict[str, Any]:
    labels = _metadata_of(template).get("labels")
    return dict(labels) if isinstance(labels, dict) else {}


def _mappings(listed: object) -> list[dict[str, Any]]:
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
