"""What the controller asks its watchers for: the Services that policies name, and the Pods that policies select."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from actors.framework.messages import Message
from actors.messages.facts import SourceName
from actors.messages.subscriptions import WatchPods
from actors.resolving.backends import namespaces_of
from actors.resolving.facts import Facts
from actors.resolving.frontends import named_service
from actors.resolving.subscriptions import Subscription, Subscriptions
from config.domain.ids import PolicyKind
from config.settings import RedirectSettings
from k8s.objects.model import PodQuery, Policy


def pod_query(policy: Policy, redirect: RedirectSettings) -> PodQuery | None:
    """The Pods that must be known to decide the policy; None if it needs none. A policy that has lost a conflict needs
    them, too, since it may take over at any time."""
    spec = policy.spec
    if spec is None or not spec.enabled or policy.key.kind != PolicyKind.LOCAL_REDIRECT:
        return None
    namespaces = namespaces_of(spec, redirect)
    if namespaces is None or len(namespaces) > 1:
        return PodQuery(namespace="", selector=spec.backend_selector)
    return next((PodQuery(namespace=each, selector=spec.backend_selector) for each in namespaces), None)


class ClusterSubscriptions(Subscriptions):
    def __init__(self, redirect: RedirectSettings) -> None:
        super().__init__()
        self._redirect = redirect
        self._pods = Subscription[PodQuery]()
        self._policies: tuple[Policy, ...] | None = None
        """The policies that `_queries` are for."""
        self._queries: frozenset[PodQuery] = frozenset()

    def change(self, facts: Facts) -> Iterator[SourceName]:
        yield from super().change(facts)
        if facts.policies is not self._policies:
            self._policies = facts.policies
            self._queries = frozenset(filter(None, (pod_query(each, self._redirect) for each in self._policies)))
        if self._pods.change(self._queries):
            yield SourceName.ENDPOINTS

    def request(self, source: SourceName) -> tuple[str, Message] | None:
        if source != SourceName.ENDPOINTS:
            return super().request(source)
        if self._pods.subscribed is None:
            return None
        return "EndpointWatcher", WatchPods(queries=self._pods.subscribed, revision=self._pods.revision)

    def is_known(self, policy: Policy) -> bool:
        """The controller waits until the sources cover the policy's Service and Pods, so that it writes no verdict that
        is wrong a moment later."""
        service, pods = named_service(policy), pod_query(policy, self._redirect)
        return (service is None or service in self._services.confirmed) and (
            pods is None or pods in self._pods.confirmed
        )

    def _of(self, source: SourceName) -> Subscription[Any] | None:
        return self._pods if source == SourceName.ENDPOINTS else super()._of(source)
