"""The usual set-up of NodeLocal DNSCache as a cache on the Pod network and policies for it. Pure.

NodeLocal DNSCache (https://kubernetes.io/docs/tasks/administer-cluster/nodelocaldns/) is a DaemonSet on the host
network whose containers get `-localip`, the addresses that they give to an interface of the node and listen on. The
new DaemonSet has another name, so that both run side by side, and removing the policies is the way back.
"""

from __future__ import annotations

from collections.abc import Sequence

from config.input.faults import Report
from k8s.commands.conversion import Conversion, given_name
from k8s.commands.node_cache import read_node_cache
from k8s.commands.node_cache_objects import new_objects
from k8s.commands.node_cache_remarks import remarks
from k8s.commands.pod_template import first_flag, pod_spec
from k8s.objects.documents import Document


def is_node_cache(document: Document) -> bool:
    return document.kind == "DaemonSet" and first_flag(document.raw, "localip") != ""


def convert_node_cache(document: Document, others: Sequence[Document]) -> Conversion:
    """`others`: the other objects of the files. Faults name the object and the field."""
    given = given_name(document)
    if not pod_spec(document.raw).get("hostNetwork"):
        remark = "spec.template.spec.hostNetwork: is not true, so the cache is already on the Pod network; keep it"
        return Conversion(given=given, remarks=(remark,))
    report = Report()
    cache = read_node_cache(document, others, report)
    if report.faults:
        return Conversion(given=given, faults=report.all_faults())
    return Conversion(given=given, objects=new_objects(cache, others), remarks=tuple(remarks(cache)))
