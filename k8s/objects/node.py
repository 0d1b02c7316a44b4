"""Raw Node -> `Node`: the labels that node selectors need. Pure."""

from __future__ import annotations

from config.input.faults import Report
from config.input.fields import Fields
from k8s.objects.metadata import check_name, key_name, read_labels, read_metadata, refuse_faulty
from k8s.objects.model import Node


def parse_node(raw: object) -> Node:
    """Raises ObjectError."""
    report = Report()
    fields = Fields(raw, "", report)
    metadata = read_metadata(fields)
    check_name(metadata)
    node = Node(name=key_name(metadata.get("name")), labels=read_labels(metadata))
    refuse_faulty("Node", raw, report)
    return node
