"""Raw Pod -> `Pod`: the fields that rules P5 and P12 need. Pure."""

from __future__ import annotations

from config.domain.addresses import Address
from config.input.faults import Report, shown
from config.input.fields import Fields
from k8s.objects.addresses import read_address, why_unreachable
from k8s.objects.metadata import read_labels, read_metadata, read_namespaced_name, refuse_faulty
from k8s.objects.model import Pod

CONFIG_HASH_ANNOTATION = "kubernetes.io/config.hash"


def node_of_pod(raw: object) -> str:
    """spec.nodeName of a raw Pod; "" when it has none."""
    spec = raw.get("spec") if isinstance(raw, dict) else None
    name = spec.get("nodeName") if isinstance(spec, dict) else None
    return name if isinstance(name, str) else ""


def parse_pod(raw: object) -> Pod:
    """Raises ObjectError."""
    report = Report()
    fields = Fields(raw, "", report)
    metadata = read_metadata(fields)
    spec = fields.mapping("spec") or Fields({}, "spec", Report())
    status = fields.mapping("status") or Fields({}, "status", Report())
    pod = Pod(
        key=read_namespaced_name(metadata),
        uid=metadata.text("uid", _is_plain, "a string"),
        node=node_of_pod(raw),
        config_hash=_read_config_hash(metadata),
        labels=read_labels(metadata),
        ips=_read_ips(status),
        ready=_is_ready(status),
        terminating=metadata.has("deletionTimestamp"),
        finished=status.get("phase") in ("Succeeded", "Failed"),
        host_network=spec.boolean("hostNetwork", False),
        containers=_read_containers(status),
        runtime_class=_text(spec.get("runtimeClassName")),
    )
    refuse_faulty("Pod", raw, report)
    return pod


def _read_config_hash(metadata: Fields) -> str:
    """ "" when there is none. Users may write anything there, so a malformed annotation is ignored."""
    annotations = metadata.get("annotations")
    found = annotations.get(CONFIG_HASH_ANNOTATION) if isinstance(annotations, dict) else None
    return found if isinstance(found, str) and _is_plain(found) else ""


def _is_plain(text: str) -> bool:
    """Whether the value may become part of a cgroup's path."""
    return text.isascii() and text.isprintable() and "/" not in text and len(text) <= 128


def _read_ips(status: Fields) -> tuple[Address, ...]:
    listed = [(f"{path}.ip", Fields(raw, path, status.report).get("ip")) for path, raw in status.items("podIPs")] or [
        (status.at("podIP"), status.get("podIP"))
    ]
    ips: list[Address] = []
    for path, raw in listed:
        if raw is None or raw == "":
            continue
        address = read_address(raw)
        wrong = "is wrong" if address is None else why_unreachable(address)
        if address is None or wrong:
            allowed = "an IP address at which other Pods reach this one"
            status.report.fault(path, f"{shown(raw)} {wrong}; it must be {allowed}")
        elif address not in ips:
            ips.append(address)
    return tuple(ips)


def _read_containers(status: Fields) -> frozenset[str]:
    """The ids in the status, without `containerd://`. Absent and malformed ids are left out: the API server does not
    check what a kubelet writes."""
    found = [
        _text(Fields(raw, path, status.report).get("containerID")) for path, raw in status.items("containerStatuses")
    ]
    ids = [identifier.rpartition("://")[2] for identifier in found]
    return frozenset(each for each in ids if each and _is_plain(each))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _is_ready(status: Fields) -> bool:
    conditions = [Fields(raw, path, status.report) for path, raw in status.items("conditions")]
    return any(condition.get("type") == "Ready" and condition.get("status") == "True" for condition in conditions)
