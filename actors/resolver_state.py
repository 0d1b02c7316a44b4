"""The facts that the resolver was told, indexed so that a change touches only the policies that it may concern. Pure.

Facts are kept with the generation of the listing that told them; when a source has ended a newer listing, what only an
older one told is gone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from actors.conflict import ClaimIndex, age
from actors.desired import Frontends, Outcome, decide, find_claims, find_frontends, named_service, namespaces_of
from actors.messages import SourceName
from config.settings import DatapathSettings, RedirectSettings
from k8s.objects import NamespacedName, Node, Pod, Policy, PolicyKey, PolicyKind, Service

_Label = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    outcomes: tuple[Outcome, ...]
    """Of LocalRedirectPolicies, where they differ from what was last returned."""
    removed: tuple[PolicyKey, ...]


class ResolverState:
    """Call what happened, then `decide_changes` once."""

    def __init__(self, *, datapath: DatapathSettings, redirect: RedirectSettings) -> None:
        self._datapath = datapath
        self._redirect = redirect
        self._policies: dict[PolicyKey, Policy] = {}
        self._services: dict[NamespacedName, Service] = {}
        self._pods: defaultdict[str, dict[NamespacedName, Pod]] = defaultdict(dict)
        """Namespace -> its Pods."""
        self._node: Node | None = None
        self._generations: dict[SourceName, dict[object, int]] = {source: {} for source in SourceName}
        """Source -> key -> newest generation that told it."""
        self._by_service: defaultdict[NamespacedName, set[PolicyKey]] = defaultdict(set)
        self._by_label: defaultdict[_Label | None, set[PolicyKey]] = defaultdict(set)
        """One label that the policy's selector demands, or None where it demands none by equality -> policies."""
        self._claims = ClaimIndex()
        self._frontends: dict[PolicyKey, Frontends] = {}
        self._outcomes: dict[PolicyKey, Outcome] = {}
        self._dirty: set[PolicyKey] = set()

    # policies

    def upsert_policy(self, policy: Policy, generation: int) -> None:
        self._generations[SourceName.POLICIES][policy.key] = generation
        former = self._policies.get(policy.key)
        if former == policy:
            return
        self._unindex(former)
        self._policies[policy.key] = policy
        service = named_service(policy)
        if service is not None:
            self._by_service[service].add(policy.key)
        for label in _demanded(policy):
            self._by_label[label].add(policy.key)
        self._dirty.add(policy.key)

    def remove_policy(self, key: PolicyKey) -> None:
        self._generations[SourceName.POLICIES].pop(key, None)
        self._unindex(self._policies.pop(key, None))
        self._dirty.add(key)

    def _unindex(self, policy: Policy | None) -> None:
        if policy is None:
            return
        service = named_service(policy)
        if service is not None:
            self._by_service[service].discard(policy.key)
            if not self._by_service[service]:
                del self._by_service[service]
        for label in _demanded(policy):
            self._by_label[label].discard(policy.key)
            if not self._by_label[label]:
                del self._by_label[label]

    @property
    def named_services(self) -> frozenset[NamespacedName]:
        return frozenset(self._by_service)

    @property
    def conflicts(self) -> int:
        return self._claims.losers

    # services

    def upsert_service(self, service: Service, generation: int) -> None:
        self._generations[SourceName.SERVICES][service.key] = generation
        if self._services.get(service.key) != service:
            self._services[service.key] = service
            self._dirty |= self._by_service.get(service.key, set())

    def remove_service(self, key: NamespacedName) -> None:
        self._generations[SourceName.SERVICES].pop(key, None)
        if self._services.pop(key, None):
            self._dirty |= self._by_service.get(key, set())

    def drop_unnamed_services(self) -> None:
        """Facts of Services that no policy names any more: nobody would tell us of their end."""
        for key in self._services.keys() - self._by_service.keys():
            self.remove_service(key)

    # Pods and the Node

    def upsert_pod(self, pod: Pod, generation: int) -> None:
        self._generations[SourceName.ENDPOINTS][pod.key] = generation
        former = self._pods[pod.key.namespace].get(pod.key)
        if former != pod:
            self._pods[pod.key.namespace][pod.key] = pod
            self._touch_selectors(pod.labels | (former.labels if former else frozenset()))

    def remove_pod(self, key: NamespacedName) -> None:
        self._generations[SourceName.ENDPOINTS].pop(key, None)
        former = self._pods[key.namespace].pop(key, None)
        if not self._pods[key.namespace]:
            del self._pods[key.namespace]
        if former:
            self._touch_selectors(former.labels)

    def _touch_selectors(self, labels: Iterable[_Label]) -> None:
        for label in (None, *labels):
            self._dirty |= self._by_label.get(label, set())

    def upsert_node(self, node: Node, generation: int) -> None:
        self._generations[SourceName.ENDPOINTS][node.name] = generation
        self._set_node(node)

    def remove_node(self, name: str) -> None:
        self._generations[SourceName.ENDPOINTS].pop(name, None)
        self._set_node(None)

    def _set_node(self, node: Node | None) -> None:
        if node != self._node:
            self._node = node
            self._dirty |= {key for key, policy in self._policies.items() if policy.spec and policy.spec.node_selector}

    # listings

    def end_listing(self, source: SourceName, generation: int) -> None:
        """Removes what this source told only before the listing that ended."""
        gone = [key for key, told in self._generations[source].items() if told < generation]
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

    # decisions

    def decide_changes(self) -> Changes:
        """Decides anew whatever the events since the last call may concern."""
        for key in self._dirty:
            self._claim(key)
        self._dirty |= self._claims.settle()
        outcomes: list[Outcome] = []
        removed: list[PolicyKey] = []
        for key in self._dirty:
            policy = self._policies.get(key)
            if policy is None:
                if self._outcomes.pop(key, None):
                    removed.append(key)
            elif key.kind == PolicyKind.LOCAL_REDIRECT:
                outcome = self._decide(policy)
                if outcome != self._outcomes.get(key):
                    self._outcomes[key] = outcome
                    outcomes.append(outcome)
        self._dirty.clear()
        return Changes(outcomes=tuple(outcomes), removed=tuple(removed))

    def all_outcomes(self) -> tuple[Outcome, ...]:
        """As of the last `decide_changes`."""
        return tuple(self._outcomes.values())

    def _claim(self, key: PolicyKey) -> None:
        policy = self._policies.get(key)
        if policy is None:
            self._frontends.pop(key, None)
            self._claims.claim(key, ("", "", ""), frozenset())
            return
        self._frontends[key] = find_frontends(policy, self._service_of(policy), self._datapath)
        self._claims.claim(key, age(policy), find_claims(policy, self._frontends[key]))

    def _decide(self, policy: Policy) -> Outcome:
        return decide(
            policy,
            frontends=self._frontends[policy.key],
            service=self._service_of(policy),
            pods=self._pods_for(policy),
            node=self._node,
            loss=self._claims.loss_of(policy.key),
            redirect=self._redirect,
        )

    def _service_of(self, policy: Policy) -> Service | None:
        name = named_service(policy)
        return self._services.get(name) if name is not None else None

    def _pods_for(self, policy: Policy) -> Iterable[Pod]:
        namespaces = namespaces_of(policy.spec, self._redirect) if policy.spec else frozenset()
        for namespace in list(self._pods) if namespaces is None else namespaces & self._pods.keys():
            yield from self._pods[namespace].values()


def _demanded(policy: Policy) -> tuple[_Label | None, ...]:
    """A label that a Pod must carry for the policy to select it; None: there is none, nothing: it selects no Pods."""
    if policy.spec is None or policy.key.kind != PolicyKind.LOCAL_REDIRECT:
        return ()
    labels = policy.spec.backend_selector.match_labels
    return (labels[0],) if labels else (None,)
