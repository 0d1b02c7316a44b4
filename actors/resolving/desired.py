"""What one policy asks of this node, and what there is to say of it (rules P1 to P7, P12 to P14). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

from actors.messages.desired import BackendPod, DesiredFrontend, DesiredPolicy
from actors.messages.reports import PolicyCondition, PolicyState
from config.domain.addresses import Address, Endpoint, Frontend, Protocol, endpoint_order
from config.domain.ids import NamespacedName, PolicyKind
from config.settings import ANY_NAMESPACE, DatapathSettings, RedirectSettings
from k8s.objects.addresses import why_no_target
from k8s.objects.claims import Loss
from k8s.objects.model import (
    AddressFrontend,
    LabelSelector,
    Node,
    Pod,
    Policy,
    PolicySpec,
    PortSpec,
    Service,
    ServiceFrontend,
)
from k8s.objects.ports import partner_ports
from k8s.objects.selector import matches

DEFAULT_AFFINITY_SECONDS = 10800
_NAMED_PODS = 3
_API_SERVICE = NamespacedName("default", "kubernetes")
Servers: TypeAlias = frozenset[tuple[Address, int]]
_L4 = {"TCP": Protocol.TCP, "UDP": Protocol.UDP}


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontends:
    """The frontends of a policy, each with the backend port that belongs to it."""

    ports: tuple[tuple[Frontend, int], ...] = ()
    claimed: frozenset[Frontend] = frozenset()
    """Those of both families, whatever this node's configuration serves: all nodes must decide conflicts alike (P8)."""
    why_none: str = ""
    """One sentence, when there are none."""
    remark: str = ""
    """One sentence about entries that give no frontend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    desired: DesiredPolicy
    condition: PolicyCondition


def find_frontends(policy: Policy, service: Service | None, datapath: DatapathSettings) -> Frontends:
    """Rules P1, P2 and P3, for the address families that the configuration names."""
    spec = policy.spec
    if spec is None:
        return Frontends()
    matcher = spec.frontend
    addresses: tuple[Address, ...]
    if isinstance(matcher, AddressFrontend):
        addresses, ports, remark = (matcher.ip,), matcher.to_ports, ""
    else:
        addresses, unusable = _service_addresses(matcher.service, service)
        if service is None or not addresses:
            return Frontends(why_none=unusable)
        ports, missing = _service_ports(matcher, service)
        if not ports:
            return Frontends(why_none=missing or f"Service {matcher.service} has no TCP or UDP port")
        remark = "; ".join(filter(None, (missing, unusable)))
    pairs: Iterable[tuple[PortSpec, int]]
    if policy.key.kind == PolicyKind.BALANCING:
        pairs = [(port, 0) for port in ports]  # its backends are not ours to know: it only claims
    else:
        named = matcher.to_ports or ports
        pairs = [(front, back.port) for front, back in partner_ports(named, spec.backend_ports) if front in ports]
    everywhere = tuple((Frontend(ip, port.port, _L4[port.protocol]), back) for ip in addresses for port, back in pairs)
    if not everywhere:
        return Frontends(why_none=remark or "no port of the Service has a partner in spec.backend.toPorts")
    claimed = frozenset(frontend for frontend, _ in everywhere)
    served = {4: datapath.ipv4, 6: datapath.ipv6}
    found = tuple((frontend, back) for frontend, back in everywhere if served[frontend.address.version])
    if not found:
        families = " and ".join(sorted({f"IPv{ip.version}" for ip in addresses}))
        why = f"its addresses are {families}, which datapath.ipv4 and datapath.ipv6 turn off here"
        return Frontends(claimed=claimed, why_none=why)
    return Frontends(ports=found, claimed=claimed, remark=remark)


def _service_addresses(name: NamespacedName, service: Service | None) -> tuple[tuple[Address, ...], str]:
    """The cluster IPs that can be frontends (P1, P17), and a remark on those that can't, or why there are none."""
    if service is None:
        return (), f"Service {name} does not exist"
    if service.faults:
        return (), f"Service {name} can't be used: {'; '.join(service.faults)}"
    if not service.cluster_ips:
        return (), f"Service {name} has no cluster IP (it is headless or an ExternalName)"
    reasons = {address: why_no_target(address) for address in service.cluster_ips}
    unusable = [f"{address} {why}" for address, why in reasons.items() if why]
    remark = f"a cluster IP of Service {name} can't be a frontend: {', '.join(unusable)}" if unusable else ""
    return tuple(address for address, why in reasons.items() if not why), remark


def _service_ports(matcher: ServiceFrontend, service: Service) -> tuple[tuple[PortSpec, ...], str]:
    """P1: all ports of the Service, or those of `toPorts` that it has; and a remark on those that it has not."""
    if not matcher.to_ports:
        return service.ports, ""
    there = {(port.port, port.protocol) for port in service.ports}
    missing = [f"{port.port}/{port.protocol}" for port in matcher.to_ports if (port.port, port.protocol) not in there]
    remark = f"Service {service.key} has no port {', '.join(missing)}" if missing else ""
    return tuple(port for port in matcher.to_ports if (port.port, port.protocol) in there), remark


def mind_server(policy: Policy, frontends: Frontends, servers: Servers | None) -> Frontends:
    """With a remark on frontends that are the address of the API server in use, at one of `servers`; None: there is no
    API server. The agent itself is never redirected (P17), but everybody else is."""
    if servers is None or policy.spec is None:
        return frontends
    matcher = policy.spec.frontend
    is_service = isinstance(matcher, ServiceFrontend) and matcher.service == _API_SERVICE
    addresses = sorted(
        str(Endpoint(frontend.address, frontend.port))
        for frontend, _ in frontends.ports
        if frontend.protocol == Protocol.TCP and (is_service or (frontend.address, frontend.port) in servers)
    )
    if not addresses:
        return frontends
    are = "is an address" if len(addresses) == 1 else "are addresses"
    remark = f"{', '.join(addresses)} {are} of the API server: all its clients but the agents are sent to the backends"
    return replace(frontends, remark=frontends.remark + also(remark) if frontends.remark else remark)


def namespaces_of(spec: PolicySpec, redirect: RedirectSettings) -> frozenset[str] | None:
    """P6: namespaces of the backend Pods; None is all."""
    if spec.backend_namespace:
        return frozenset({spec.backend_namespace})
    if isinstance(spec.frontend, ServiceFrontend):
        return frozenset({spec.frontend.service.namespace})
    allowed = redirect.address_backend_namespaces
    return None if ANY_NAMESPACE in allowed else allowed


def decide(
    policy: Policy,
    *,
    frontends: Frontends,
    service: Service | None,
    pods: Iterable[Pod],
    node: Node | None,
    loss: Loss | None,
    redirect: RedirectSettings,
) -> Outcome:
    """`pods` are those of this node in the policy's namespaces; those that it selects are found here."""
    spec = policy.spec
    why = why_out_of_force(policy, loss)
    if why is not None:
        return _out_of_force(policy, *why)
    assert spec is not None
    if not _selects_node(spec.node_selector, node):
        message = "spec.config.nodeLabelSelector does not match this node's labels"
        return _out_of_force(policy, PolicyState.NODE_NOT_SELECTED, message)
    selected = sorted(
        (pod for pod in pods if not pod.finished and matches(spec.backend_selector, pod.labels)),
        key=lambda pod: pod.key,
    )
    usable = [pod for pod in selected if pod.usable]
    serving = serving_pods(frontends, usable)
    installed = tuple(
        DesiredFrontend(frontend=frontend, backends=backends)
        for frontend, port in frontends.ports
        if (backends := _backends(usable, frontend, port))
    )
    state, message = _state(frontends, selected, serving, installed)
    excluded = selected if spec.skip_redirect_from_backend else []
    desired = DesiredPolicy(
        key=policy.key,
        uid=policy.uid,
        policy_id=policy.policy_id,
        in_force=True,
        limit=redirect.qos_limit if spec.qos_limit is None else spec.qos_limit,
        affinity_seconds=affinity_seconds(spec, service),
        redirect_from_host=spec.redirect_from_host,
        frontends=installed,
        excluded=tuple(BackendPod(key=pod.key, uid=pod.uid, config_hash=pod.config_hash) for pod in excluded),
    )
    condition = PolicyCondition(
        key=policy.key,
        policy_id=policy.policy_id,
        state=state,
        reason=state.value,
        message=message,
        frontends=tuple(frontend for frontend, _ in frontends.ports),
        backends=tuple(sorted({b for each in installed for b in each.backends}, key=endpoint_order)),
        usable_pods=len(serving),
    )
    return Outcome(desired=desired, condition=condition)


def why_out_of_force(policy: Policy, loss: Loss | None) -> tuple[PolicyState, str] | None:
    """What holds in the whole cluster: state and message; None for a policy that is in force."""
    if policy.spec is None:
        return PolicyState.INVALID, "; ".join(policy.faults)
    if not policy.spec.enabled:
        return PolicyState.DISABLED, "spec.enabled is false"
    if loss is not None:
        return PolicyState.CONFLICT, f"{loss.what} is held by {loss.winner.kind} {loss.winner.name}, which is older"
    return None


def serving_pods(frontends: Frontends, usable: Iterable[Pod]) -> list[Pod]:
    """P5: those with an IP of a frontend's family."""
    families = {frontend.address.version for frontend, _ in frontends.ports}
    return [pod for pod in usable if any(ip.version in families for ip in pod.ips)]


def _out_of_force(policy: Policy, state: PolicyState, message: str) -> Outcome:
    return Outcome(
        desired=DesiredPolicy(key=policy.key, uid=policy.uid, policy_id=policy.policy_id, in_force=False),
        condition=PolicyCondition(
            key=policy.key, policy_id=policy.policy_id, state=state, reason=state.value, message=message
        ),
    )


def _selects_node(selector: LabelSelector | None, node: Node | None) -> bool:
    return selector is None or matches(selector, node.labels if node else frozenset())


def _backends(usable: Iterable[Pod], frontend: Frontend, port: int) -> tuple[Endpoint, ...]:
    """P5: each usable Pod's first IP of the frontend's family; two Pods of the host network are one endpoint."""
    found = set()
    for pod in usable:
        ip = next((ip for ip in pod.ips if ip.version == frontend.address.version), None)
        if ip is not None:
            found.add(Endpoint(ip, port))
    return tuple(sorted(found, key=endpoint_order))


def _state(
    frontends: Frontends, selected: list[Pod], serving: list[Pod], installed: tuple[DesiredFrontend, ...]
) -> tuple[PolicyState, str]:
    if not frontends.ports:
        return PolicyState.NO_FRONTEND, frontends.why_none
    if not installed:
        why = _why_no_backend(selected)
        return PolicyState.NO_BACKEND, f"{why}; clients take the normal way" + also(frontends.remark)
    number = len(frontends.ports)
    which = count(number, "frontend") if len(installed) == number else f"{len(installed)} of {number} frontends"
    message = f"{which} redirected to {count(len(serving), 'local Pod')}"
    return PolicyState.ACTIVE, message + also(frontends.remark)


def also(remark: str) -> str:
    return f"; {remark}" if remark else ""


def count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _why_no_backend(selected: list[Pod]) -> str:
    if any(pod.usable for pod in selected):
        return "no usable Pod has an IP of the frontends' address family"
    if not selected:
        return "no Pod on this node matches spec.backend.endpointSelector"
    names = [f"{pod.key} ({_why_unusable(pod)})" for pod in selected[:_NAMED_PODS]]
    if len(selected) > _NAMED_PODS:
        names.append("...")
    matching = "1 Pod matches" if len(selected) == 1 else f"{len(selected)} Pods match"
    return f"{matching}, none is usable: {', '.join(names)}"


def _why_unusable(pod: Pod) -> str:
    if pod.terminating:
        return "being deleted"
    return "no IP" if not pod.ips else "not Ready"


def affinity_seconds(spec: PolicySpec, service: Service | None) -> int:
    """P13: the policy's word, else the Service's; 0 is no affinity."""
    of_service = service is not None and isinstance(spec.frontend, ServiceFrontend)
    wanted = spec.session_affinity
    if wanted is None:
        wanted = of_service and service is not None and service.client_ip_affinity
    if not wanted:
        return 0
    if spec.affinity_seconds is not None:
        return spec.affinity_seconds
    return service.affinity_seconds if of_service and service is not None else DEFAULT_AFFINITY_SECONDS


def named_service(policy: Policy) -> NamespacedName | None:
    """The Service that a policy of either kind matches."""
    if policy.spec is None or not isinstance(policy.spec.frontend, ServiceFrontend):
        return None
    return policy.spec.frontend.service
