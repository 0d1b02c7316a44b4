"""What is different or left to do after a DaemonSet of NodeLocal DNSCache was converted, in sentences. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from k8s.commands.node_cache import DNS_SERVICE, NodeCache
from k8s.commands.pod_template import first_flag, pod_spec
from k8s.objects.addresses import read_address


def remarks(cache: NodeCache) -> Iterator[str]:
    path = "spec.template.spec"
    yield (
        f"metadata.name: the new DaemonSet is {cache.new_name} and runs beside the old one; delete the old one "
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
    if not cache.domain:
        yield (
            "the Corefile does not name the cluster's domain; give spec.backend.healthCheck.dns a name that the "
            "cluster's DNS answers, if it cannot reach the root's name servers"
        )
    yield (
        f"the policy {cache.name} assumes that the cluster's DNS is the Service {DNS_SERVICE} in {cache.namespace}, "
        "with port 53 for both protocols"
    )
    for text in cache.local_addresses:
        yield from _about_address(cache, text)
    if upstream := first_flag(cache.daemon_set, "upstreamsvc"):
        yield f"-upstreamsvc: keep the Service {cache.namespace}/{upstream}, which the new cache asks"
    elif cache.forwards_to:
        yield (
            f"the Corefile forwards to {', '.join(sorted(cache.forwards_to))}, which the new cache reaches the "
            "normal way, also if it is the address of the redirected Service"
        )
    if cache.placeholders:
        yield f"fill in {', '.join(sorted(cache.placeholders))} before you apply this, as in the original"
    if pod_spec(cache.daemon_set).get("serviceAccountName"):
        yield f"{path}.serviceAccountName: is left out, since the cache does not use the API"


def _about_address(cache: NodeCache, text: str) -> Iterator[str]:
    address = read_address(text)
    if address is None:
        yield (
            f"-localip: {text} is a placeholder; if kubelets give it to Pods as clusterDNS, and it is not the "
            f"address of {DNS_SERVICE}, fill it in and convert again, so that it gets a policy of its own"
        )
    elif address.is_link_local:
        yield (
            f"-localip: {address} gets a policy of its own, for Pods whose kubelet names it as clusterDNS; "
            "nobody answers there once the old DaemonSet is gone and a node has no usable cache, so give kubelets "
            f"the address of {DNS_SERVICE} again, restart such Pods, and then delete that policy"
        )
    else:
        covered = f"which the policy {cache.name} covers"
        yield f"-localip: {address} should be the address of {DNS_SERVICE}, {covered}"
