"""What a DaemonSet of NodeLocal DNSCache and its Corefiles say, as far as the conversion needs it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from config.domain.names import DNS_SUBDOMAIN
from config.input.faults import Report, WrongValue
from k8s.commands.corefile import Corefile, has_placeholder, is_corefile, on_pod_network, placeholders_in
from k8s.commands.pod_template import first_flag, mappings, pod_spec
from k8s.objects.addresses import read_address
from k8s.objects.documents import Document
from k8s.objects.metadata import DEFAULT_NAMESPACE, key_name
from k8s.objects.raw import Raw, raw_metadata

DNS_SERVICE = "kube-dns"
"""The Service of the cluster's DNS."""
SUFFIX = "-redirected"
"""What the names of new objects end with."""


class ConfigMap(NamedTuple):
    name: str
    """Of the old one."""
    data: Raw
    """With the Corefile for the Pod network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCache:
    daemon_set: Raw
    name: str
    namespace: str
    local_addresses: tuple[str, ...]
    """The values of `-localip`: IP addresses and placeholders."""
    config_maps: tuple[ConfigMap, ...]
    """Those with a Corefile that changes."""
    domain: str
    """The cluster's domain, as the Corefile names it; "" when it does not."""
    forwards_to: frozenset[str]
    """The IP addresses to which the Corefile forwards."""
    placeholders: frozenset[str]
    """What somebody has to fill in."""

    @property
    def new_name(self) -> str:
        return self.name + SUFFIX


def _local_addresses(daemon_set: Raw) -> tuple[str, ...]:
    return tuple(each.strip() for each in first_flag(daemon_set, "localip").split(",") if each.strip())


def read_node_cache(document: Document, others: Sequence[Document], report: Report) -> NodeCache:
    """`others`: the other objects of the files."""
    metadata = raw_metadata(document.raw)
    name, namespace = key_name(metadata.get("name")), key_name(metadata.get("namespace")) or DEFAULT_NAMESPACE
    if not DNS_SUBDOMAIN.fullmatch(name):
        report.fault("metadata.name", str(WrongValue(name, "a DNS name")))
    config_maps: list[ConfigMap] = []
    corefiles: list[Corefile] = []
    mounted = _mounted_config_maps(document.raw)
    for each in mounted:
        for data in _data_of_config_maps(others, each, namespace):
            new = {key: on_pod_network(value) for key, value in data.items() if is_corefile(value)}
            corefiles.extend(new.values())
            changed = {**data, **{key: corefile.text for key, corefile in new.items()}}
            if changed != data:
                config_maps.append(ConfigMap(each, changed))
    if not config_maps:
        names = " or ".join(f"ConfigMap/{namespace}/{each}" for each in mounted)
        wanted = f"{names} with a Corefile" if names else "a volume with a ConfigMap that has a Corefile"
        report.fault("spec.template.spec.volumes", f"the Corefile is missing; the files must have {wanted}")
    addresses = _local_addresses(document.raw)
    for text in addresses:
        if read_address(text) is None and not has_placeholder(text):
            wrong = WrongValue(text, "IP addresses, separated by commas")
            report.fault("spec.template.spec.containers", f"-localip: {wrong}")
    texts = (*addresses, *(each.text for each in corefiles))
    return NodeCache(
        daemon_set=document.raw,
        name=name,
        namespace=namespace,
        local_addresses=addresses,
        config_maps=tuple(config_maps),
        domain=next((each.domain for each in reversed(corefiles) if each.domain), ""),
        forwards_to=frozenset().union(*(each.forwards_to for each in corefiles)),
        placeholders=frozenset().union(*map(placeholders_in, texts)),
    )


def _mounted_config_maps(daemon_set: Raw) -> list[str]:
    maps = [each.get("configMap") for each in mappings(pod_spec(daemon_set).get("volumes"))]
    return [str(each["name"]) for each in maps if isinstance(each, dict) and each.get("name")]


def _data_of_config_maps(others: Sequence[Document], name: str, namespace: str) -> list[Raw]:
    found = []
    for each in others:
        data, metadata = each.raw.get("data"), raw_metadata(each.raw)
        named = (metadata.get("name"), metadata.get("namespace") or DEFAULT_NAMESPACE)
        if each.kind == "ConfigMap" and isinstance(data, dict) and named == (name, namespace):
            found.append(data)
    return found
