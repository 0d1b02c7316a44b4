"""Which Pods are a policy's backends (rules P4, P5 and P6). Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from actors.resolving.frontends import Frontends
from config.domain.addresses import Address, Endpoint, Frontend, endpoint_order
from config.settings import ANY_NAMESPACE, RedirectSettings
from k8s.objects.model import Pod, PolicySpec, ServiceFrontend
from k8s.objects.selector import matches


def namespaces_of(spec: PolicySpec, redirect: RedirectSettings) -> frozenset[str] | None:
    """P6: the namespaces of the backend Pods; None means all namespaces."""
    if spec.backend_namespace:
        return frozenset({spec.backend_namespace})
    if isinstance(spec.frontend, ServiceFrontend):
        return frozenset({spec.frontend.service.namespace})
    allowed = redirect.address_backend_namespaces
    return None if ANY_NAMESPACE in allowed else allowed


def selected_pods(spec: PolicySpec, pods: Iterable[Pod]) -> list[Pod]:
    """P4: the Pods that the policy selects and that have not finished, ready or not, sorted by name."""
    found = (pod for pod in pods if not pod.finished and matches(spec.backend_selector, pod.labels))
    return sorted(found, key=lambda pod: pod.key)


def serving_pods(frontends: Frontends, usable: Iterable[Pod]) -> list[Pod]:
    """P5: the usable Pods that have an IP of a frontend's address family."""
    return [pod for pod, _ in serving_addresses(frontends, usable)]


def serving_addresses(frontends: Frontends, usable: Iterable[Pod]) -> Iterator[tuple[Pod, Address]]:
    """Yields the same Pods, each with the first of these IPs."""
    families = {frontend.address.version for frontend, _ in frontends.ports}
    for pod in usable:
        for address in pod.ips:
            if address.version in families:
                yield pod, address
                break


def backend_endpoints(usable: Iterable[Pod], frontend: Frontend, port: int) -> tuple[Endpoint, ...]:
    """P5: each usable Pod's first IP of the frontend's family. Two Pods of the host network are one endpoint."""
    found = set()
    for pod in usable:
        ip = next((ip for ip in pod.ips if ip.version == frontend.address.version), None)
        if ip is not None:
            found.add(Endpoint(ip, port))
    return tuple(sorted(found, key=endpoint_order))


def unusable_backends(
    frontends: Frontends, selected: Iterable[Pod], usable: Collection[Pod]
) -> frozenset[tuple[Frontend, Endpoint]]:
    """Each frontend with the endpoints of the selected Pods that are not usable, unless a usable Pod has them too."""
    keys = {pod.key for pod in usable}
    unusable = [pod for pod in selected if pod.key not in keys]
    return frozenset(
        (frontend, endpoint)
        for frontend, port in frontends.ports
        for endpoint in {*backend_endpoints(unusable, frontend, port)} - {*backend_endpoints(usable, frontend, port)}
    )
