"""All actors of the controller together, over objects in memory. A failure of one of them causes no wrong write."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from queue import SimpleQueue
from urllib.error import URLError
from urllib.request import urlopen

import pykka
import pytest

from actors.controller import status_writer, write_plan
from actors.controller_wiring import specs_with
from actors.framework.actor import send
from actors.framework.messages import TickElapsed
from actors.framework.supervisor import Supervisor
from actors.messages.reports import REPORTERS
from actors.watching.sources import SourceFactory, Sources
from config.domain.ids import PolicyKey, PolicyKind
from config.settings import HealthSettings, MetricsSettings, Settings
from k8s.objects.identity import Identity, identity
from k8s.objects.model import KubeObject, Node, Pod, PodQuery, Policy, PolicyStatus, Service
from k8s.objects.selector import matches
from k8s.sources.source import Deliver, ListingEnded, ListingStarted, Removed, Topic, Upserted
from k8s.status.write_requests import StatusWrite, Write, WriteAnswer, WriteResult
from tests.expressions import OF_CONTROLLER_ONLY, complaints, exported, selected
from tests.unit.objects import SERVICE, address_spec, pod, policy, port, service_spec
from tests.unit.peers import WAIT_SECONDS, free_port

ACTORS = (
    "LeaderElector",
    "StatusReporter",
    "MetricsExporter",
    "StatusWriter",
    "ConflictResolver",
    "EndpointWatcher",
    "ServiceWatcher",
    "PolicyWatcher",
)


class Cluster:
    """Objects and the sources that watch them. Accepts writes of a policy's status, as an API server does."""

    def __init__(self) -> None:
        self.objects: dict[Identity, KubeObject] = {}
        self.sources: list[MemorySource] = []
        self.writes: list[StatusWrite] = []
        self.metrics_port = free_port()
        self._version = 1

    def put(self, *objects: KubeObject) -> None:
        for each in objects:
            self._version += 1
            found = each
            if isinstance(each, Policy):
                former = self.objects.get(identity(each))
                status = former.status if isinstance(former, Policy) and former.status else PolicyStatus()
                found = replace(each, uid=f"uid-{each.key.name}", status=replace(status, version=self._version))
            self.objects[identity(found)] = found
            self.notify()

    def remove(self, each: KubeObject) -> None:
        self.objects.pop(identity(each))
        self.notify()

    def notify(self) -> None:
        """Lets each source deliver what has changed."""
        for source in self.sources:
            source.requests.put(source.compare)

    def write(self, write: Write) -> WriteAnswer:
        """In the writer's thread."""
        if isinstance(write, StatusWrite):
            found = self.objects[str(write.key.kind), write.key]
            assert isinstance(found, Policy)
            self.writes.append(write)
            self._version += 1
            status = replace(write.status, version=self._version)
            self.objects[identity(found)] = replace(found, status=status)
            self.notify()
        return WriteAnswer(result=WriteResult.WRITTEN, version=self._version)

    def counts(self) -> dict[str, str]:
        statuses = {each.key.name: each.status for each in self.objects.values() if isinstance(each, Policy)}
        return {name: status.nodes for name, status in statuses.items() if status}

    def source(self, *kinds: type[KubeObject]) -> SourceFactory:
        def build(deliver: Deliver) -> MemorySource:
            self.sources.append(MemorySource(self, deliver, kinds))
            return self.sources[-1]

        return build


class MemorySource:
    def __init__(self, cluster: Cluster, deliver: Deliver, kinds: tuple[type[KubeObject], ...]) -> None:
        self._cluster = cluster
        self._deliver = deliver
        self._kinds = kinds
        self._seen: dict[Identity, KubeObject] = {}
        self._topics: frozenset[Topic] = frozenset()
        self._revision = 0
        self.requests: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def run(self) -> None:
        self._list()
        while (request := self.requests.get()) is not None:
            request()

    def stop(self) -> None:
        self.requests.put(None)

    def relist(self, since: float = 0.0) -> None:
        del since
        self.requests.put(self._list)

    def subscribe(self, topics: frozenset[Topic], revision: int) -> None:
        def grant() -> None:
            self._topics, self._revision = topics, revision
            self.compare()
            self._deliver(ListingEnded(time.monotonic(), revision))

        self.requests.put(grant)

    def _list(self) -> None:
        self._deliver(ListingStarted("start"))
        self._seen = {}
        self.compare()
        self._deliver(ListingEnded(time.monotonic(), self._revision))

    def compare(self) -> None:
        there = {name: each for name, each in list(self._cluster.objects.items()) if self._is_watched(each)}
        for name, each in there.items():
            if self._seen.get(name) != each:
                self._deliver(Upserted(each, time.monotonic()))
        for _, key in self._seen.keys() - there.keys():
            self._deliver(Removed(key, time.monotonic()))
        self._seen = there

    def _is_watched(self, each: KubeObject) -> bool:
        if not isinstance(each, self._kinds):
            return False
        if isinstance(each, Service):
            return each.key in self._topics
        queries = [query for query in self._topics if isinstance(query, PodQuery)]
        return not isinstance(each, Pod) or any(
            query.namespace in ("", each.key.namespace) and matches(query.selector, each.labels) for query in queries
        )


class Leader:
    identity = holder = "this"

    def leads(self) -> bool:
        return True

    def run(self) -> None:
        self._over: SimpleQueue[None] = SimpleQueue()
        self._over.get()

    def stop(self) -> None:
        self._over.put(None)

    def release(self) -> None:
        pass


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    # Short, so that a wrong status would be written within the test, and no test takes long.
    monkeypatch.setattr(write_plan, "POLICY_SECONDS", 0.02)
    monkeypatch.setattr(status_writer, "TICK_SECONDS", 0.01)
    made = Cluster()
    made.put(*(Node(name=name) for name in "ab"), SERVICE)
    made.put(*(replace(pod(f"cache-{name}"), node=name) for name in "ab"))
    made.put(policy(address_spec(), name="vip", policy_id=1))
    made.put(policy(service_spec(port(53), backend=(port(5353),)), name="dns", policy_id=2))
    settings = Settings(
        health=HealthSettings(port=free_port()),
        metrics=MetricsSettings(address="127.0.0.1", port=made.metrics_port),
    )
    sources = Sources(policies=made.source(Policy), services=made.source(Service), endpoints=made.source(Pod, Node))
    specs = specs_with(settings, sources, Leader(), made.write)  # type: ignore[arg-type]
    assert tuple(each.name for each in specs) == ACTORS
    supervisor = Supervisor.start(specs=specs, reporters=REPORTERS, on_fatal=lambda _: None)
    yield made
    supervisor.stop(timeout=WAIT_SECONDS)


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_all_actors_together_write_the_status_of_each_policy(cluster: Cluster) -> None:
    wait_for(lambda: cluster.counts() == {"vip": "2/2", "dns": "2/2"})
    assert len(cluster.writes) == 2, "one for each policy: nothing is decided before all objects are known"
    cluster.put(policy(address_spec(), name="young", policy_id=3, created="2026-01-01T00:00:00Z"))
    wait_for(lambda: len(cluster.writes) == 3)
    assert cluster.writes[-1].status.reason == "Conflict"
    cluster.remove(cluster.objects["LocalRedirectPolicy", PolicyKey(PolicyKind.LOCAL_REDIRECT, "vip")])
    wait_for(lambda: cluster.counts() == {"young": "2/2", "dns": "2/2"})


def scrape(cluster: Cluster) -> str:
    """The text of /metrics; "" while nobody listens there yet."""
    try:
        with urlopen(f"http://127.0.0.1:{cluster.metrics_port}/metrics", timeout=WAIT_SECONDS) as answer:
            found: str = answer.read().decode()
    except URLError:
        return ""
    return found


def test_the_metrics_of_a_controller_are_those_that_alerts_and_panels_name(cluster: Cluster) -> None:
    """Other metrics that they name are an agent's (tests/kernel/test_alerts.py)."""
    named = {each for each in selected() if each.metric in OF_CONTROLLER_ONLY}
    assert named
    wait_for(lambda: named <= exported(scrape(cluster)))
    assert complaints(scrape(cluster)) == "", "promtool's"


@pytest.mark.usefixtures("expects_failures")
@pytest.mark.parametrize("name", ACTORS)
def test_an_actor_that_fails_is_replaced_and_no_wrong_status_is_written(cluster: Cluster, name: str) -> None:
    wait_for(lambda: cluster.counts() == {"vip": "2/2", "dns": "2/2"})
    (former,) = pykka.ActorRegistry.get_by_class_name(name)
    former.tell("nonsense")
    assert former.actor_stopped.wait(WAIT_SECONDS)
    # The change happens while the actor is not running, so its successor has to find it out.
    cluster.put(replace(pod("cache-b", ready=False), node="b"))
    wait_for(lambda: any(ref.actor_urn != former.actor_urn for ref in pykka.ActorRegistry.get_by_class_name(name)))
    wait_for(lambda: cluster.counts() == {"vip": "1/2", "dns": "1/2"})
    cluster.put(replace(pod("cache-b"), node="b"))
    wait_for(lambda: cluster.counts() == {"vip": "2/2", "dns": "2/2"})
    assert [write.status.nodes for write in cluster.writes if write.key.name == "vip"] == ["2/2", "1/2", "2/2"]
    assert send("Supervisor", TickElapsed()), "the supervisor is still running"
