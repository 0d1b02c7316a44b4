"""The facts that the resolver knows, indexed so that a change touches only the policies that it may concern. Pure.

Each fact is kept with the number of the listing that it came with. When a newer listing of its source ends without it,
the object is gone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TypeVar

from actors.messages.backends import ContainersEnded
from actors.messages.checks import HealthChanged
from actors.messages.facts import SourceName
from actors.resolving.backends import namespaces_of
from actors.resolving.frontends import named_service
from actors.resolving.indexes import Label, NodeIndex, PodIndex, demanded_label
from actors.resolving.pod_health import PodHealth
from config.domain.addresses import Address
from config.domain.checks import HealthCheck
from config.domain.ids import NamespacedName, PolicyKey, PolicyKind
from config.settings import RedirectSettings
from k8s.objects.model import Node, Pod, Policy, Service

_Key = TypeVar("_Key")


class Facts:
    """Call the method for each fact, then `take_concerned` for the policies that must be decided again."""

    def __init__(self, *, counts_nodes: bool) -> None:
        """`counts_nodes`: see `Decision.counts_nodes`."""
        self._counts_nodes = counts_nodes
        self.nodes = NodeIndex()
        self._policies: dict[PolicyKey, Policy] = {}
        self._services: dict[NamespacedName, Service] = {}
        self._pods = PodIndex()
        self._pod_addresses: frozenset[Address] | None = None
        """The addresses of the Pods in `_pods`; None when they have to be collected again."""
        self._all_policies: tuple[Policy, ...] | None = None
        """The policies in `_policies`; None when they have to be collected again."""
        self._named_services: frozenset[NamespacedName] | None = None
        """The keys of `_by_service`; None when they have to be collected again."""
        self._listings: dict[SourceName, dict[object, int]] = {source: {} for source in SourceName}
        """Source -> key -> number of the newest listing that had the object."""
        self._by_service: defaultdict[NamespacedName, set[PolicyKey]] = defaultdict(set)
        self._by_label: defaultdict[Label | None, set[PolicyKey]] = defaultdict(set)
        """What `_demanded` returns -> the policies."""
        self._health = PodHealth()
        self._concerned: set[PolicyKey] = set()

    def take_concerned(self) -> set[PolicyKey]:
        """Returns the policies that the facts since the last call may concern, including policies that are gone."""
        concerned, self._concerned = self._concerned, set()
        return concerned

    def policy(self, key: PolicyKey) -> Policy | None:
        return self._policies.get(key)

    def service_of(self, policy: Policy) -> Service | None:
        """The Service that the policy matches; None when it matches none, or one that does not exist."""
        name = named_service(policy)
        return self._services.get(name) if name is not None else None

    def pods_of(self, policy: Policy, redirect: RedirectSettings) -> Iterable[Pod]:
        """Pods that the policy may select, in its namespaces."""
        if policy.spec is None:
            return ()
        return self._pods.candidates(namespaces_of(policy.spec, redirect), policy.spec.backend_selector)

    @property
    def pod_addresses(self) -> frozenset[Address]:
        """The addresses of all Pods that have not finished."""
        if self._pod_addresses is None:
            self._pod_addresses = frozenset(ip for pod in self._pods if not pod.finished for ip in pod.ips)
        return self._pod_addresses

    def ended(self, pods: Iterable[Pod]) -> dict[NamespacedName, str]:
        """Those of these Pods that a container's end has put out of use (P18) -> why."""
        return self._health.ended(pods)

    def unhealthy(self, policy: Policy, pods: Iterable[Pod]) -> dict[NamespacedName, str]:
        """Those of these Pods that the policy's check has put out of use (P19) -> why."""
        return self._health.unhealthy(policy.key, pods)

    # policies

    def upsert_policy(self, policy: Policy, listing: int) -> None:
        self._listings[SourceName.POLICIES][policy.key] = listing
        former = self._policies.get(policy.key)
        if former == policy:
            return
        if former is not None and _check_of(former) != _check_of(policy):
            self._health.forget_checks(policy.key)
        self._unindex(former)
        self._policies[policy.key] = policy
        service = named_service(policy)
        if service is not None:
            self._by_service[service].add(policy.key)
        for label in _demanded(policy):
            self._by_label[label].add(policy.key)
        self._concerned.add(policy.key)

    def remove_policy(self, key: PolicyKey) -> None:
        self._listings[SourceName.POLICIES].pop(key, None)
        self._unindex(self._policies.pop(key, None))
        self._health.forget_checks(key)
        self._concerned.add(key)

    def _unindex(self, policy: Policy | None) -> None:
        self._all_policies = self._named_services = None
        if policy is None:
            return
        service = named_service(policy)
        if service is not None:
            _discard(self._by_service, service, policy.key)
        for label in _demanded(policy):
            _discard(self._by_label, label, policy.key)
        if policy.spec and policy.spec.node_selector:
            self.nodes.forget(policy.spec.node_selector)

    @property
    def policies(self) -> tuple[Policy, ...]:
        """Returns the same object until a policy changes, so that comparing it with the last one takes no time."""
        if self._all_policies is None:
            self._all_policies = tuple(self._policies.values())
        return self._all_policies

    @property
    def named_services(self) -> frozenset[NamespacedName]:
        """Returns the same object until a policy changes, too."""
        if self._named_services is None:
            self._named_services = frozenset(self._by_service)
        return self._named_services

    # services

    def upsert_service(self, service: Service, listing: int) -> None:
        self._listings[SourceName.SERVICES][service.key] = listing
        if self._services.get(service.key) != service:
            self._services[service.key] = service
            self._concerned |= self._by_service.get(service.key, set())

    def remove_service(self, key: NamespacedName) -> None:
        self._listings[SourceName.SERVICES].pop(key, None)
        if self._services.pop(key, None):
            self._concerned |= self._by_service.get(key, set())

    def drop_unnamed_services(self) -> None:
        """Forgets Services that no policy names any longer, because ServiceWatcher would not report their removal."""
        for key in self._services.keys() - self._by_service.keys():
            self.remove_service(key)

    # Pods and Nodes

    def upsert_pod(self, pod: Pod, listing: int) -> None:
        self._listings[SourceName.ENDPOINTS][pod.key] = listing
        former = self._pods.get(pod.key)
        if former != pod:
            self._pods.put(pod)
            self._pod_addresses = None
            self._touch_selectors(pod.labels | (former.labels if former else frozenset()))

    def remove_pod(self, key: NamespacedName) -> None:
        self._listings[SourceName.ENDPOINTS].pop(key, None)
        former = self._pods.get(key)
        self._health.forget_pod(key)
        if former:
            self._pods.drop(key)
            self._pod_addresses = None
            self._touch_selectors(former.labels)

    def containers_ended(self, ended: ContainersEnded) -> None:
        """Ignores a Pod that is gone."""
        pod = self._pods.get(ended.pod)
        if pod is not None:
            self._health.containers_ended(ended)
            self._touch_selectors(pod.labels)

    def health_changed(self, found: HealthChanged) -> None:
        """Ignores a finding about a policy, a check or a Pod that is gone."""
        policy, pod = self._policies.get(found.policy), self._pods.get(found.pod)
        if policy and pod and (_check_of(policy), pod.uid) == (found.check, found.uid):
            self._health.health_changed(found)
            self._concerned.add(policy.key)

    def _touch_selectors(self, labels: Iterable[Label]) -> None:
        for label in (None, *labels):
            self._concerned |= self._by_label.get(label, set())

    def upsert_node(self, node: Node, listing: int) -> None:
        self._listings[SourceName.ENDPOINTS][node.name] = listing
        former = self.nodes.get(node.name)
        if former != node:
            self.nodes.put(node)
            self._touch_nodes(is_another=former is None)

    def remove_node(self, name: str) -> None:
        self._listings[SourceName.ENDPOINTS].pop(name, None)
        if self.nodes.get(name):
            self.nodes.drop(name)
            self._touch_nodes(is_another=True)

    def _touch_nodes(self, *, is_another: bool) -> None:
        """`is_another`: a Node came or went. Otherwise only its labels changed."""
        all_of_them = is_another and self._counts_nodes
        self._concerned |= {
            key for key, policy in self._policies.items() if all_of_them or (policy.spec and policy.spec.node_selector)
        }

    # listings

    def end_listing(self, source: SourceName, listing: int) -> None:
        """Removes what this source reported only before the listing that ended."""
        gone = [key for key, newest in self._listings[source].items() if newest < listing]
        for key in gone:
            self._remove(source, key)

    def _remove(self, source: SourceName, key: object) -> None:
        if isinstance(key, PolicyKey):
            self.remove_policy(key)
        elif isinstance(key, NamespacedName):
            remove: Callable[[NamespacedName], None] = (
                self.remove_service if source == SourceName.SERVICES else self.remove_pod
            )
            remove(key)
        elif isinstance(key, str):
            self.remove_node(key)


def _check_of(policy: Policy) -> HealthCheck | None:
    return policy.spec.health_check if policy.spec else None


def _demanded(policy: Policy) -> tuple[Label | None, ...]:
    """One label that a Pod must carry for the policy to select it, or None if the selector demands none by equality.
    Empty for a policy that selects no Pods."""
    if policy.spec is None or policy.key.kind != PolicyKind.LOCAL_REDIRECT:
        return ()
    return (demanded_label(policy.spec.backend_selector),)


def _discard(index: dict[_Key, set[PolicyKey]], key: _Key, policy: PolicyKey) -> None:
    index[key].discard(policy)
    if not index[key]:
        del index[key]
