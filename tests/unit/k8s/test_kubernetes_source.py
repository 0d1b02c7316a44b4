"""The Kubernetes source: several list-watches as one source. On a scripted API server; tests/cluster has a real one."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from config.backoff import Backoff
from config.domain.ids import NamespacedName
from config.settings import RedirectSettings
from k8s.api import listwatch, server_judgement
from k8s.api.client import Api
from k8s.api.resource import Resource
from k8s.api.stream_events import Changed, Listed
from k8s.api.trouble import Trouble, TroubleKind
from k8s.objects.identity import identity, identity_text
from k8s.objects.service import parse_service
from k8s.sources import resources
from k8s.sources.kubernetes import KubernetesSource, worst_trouble
from k8s.sources.source import NOTHING_TO_HEAR, Heard, ListingEnded, ListingStarted, Removed, SourceEvent, Upserted
from tests.unit.api_server import ApiServer, Handler, api_server, lines, refusal

DNS = NamespacedName("kube-system", "kube-dns")
WEB = NamespacedName("default", "web")


def service(name: NamespacedName, ip: str = "10.0.0.1") -> dict[str, Any]:
    metadata = {"name": name.name, "namespace": name.namespace, "resourceVersion": "8"}
    return {"metadata": metadata, "spec": {"clusterIP": ip}}


class Cluster:
    """Answers by path: a list of what exists, and a watch of what the test puts in."""

    def __init__(self, server: ApiServer) -> None:
        self.objects: dict[str, list[dict[str, Any]]] = {}
        self._events: defaultdict[str, SimpleQueue[bytes]] = defaultdict(SimpleQueue)
        self.answering = threading.Event()
        """Lists are answered while it is set."""
        self.answering.set()
        self.refused = ""
        """A path that may not be read."""
        server.will(*[self._answer] * 1000)

    def _answer(self, handler: Handler) -> None:
        asked = handler.asked.get()
        key = asked.get("fieldSelector", asked["path"])
        if asked["path"] == self.refused:
            refusal(403, "Forbidden")(handler)
        elif "watch" in asked:
            handler.begin()
            with contextlib.suppress(Empty, OSError):
                handler.chunk(self._events[key].get(timeout=20))
            handler.released.wait(20)
        else:
            self.answering.wait(10)
            handler.reply(200, {"metadata": {"resourceVersion": "7"}, "items": self.objects.get(key, [])})

    def happens(self, key: str, *events: dict[str, Any]) -> None:
        self._events[key].put(lines(*events))


class Running:
    def __init__(self, server: ApiServer, *fixed: Resource) -> None:
        self.cluster = Cluster(server)
        self.events: SimpleQueue[SourceEvent] = SimpleQueue()
        self.source = KubernetesSource(
            api=Api(str(server.kubeconfig)), fixed=fixed, redirect=RedirectSettings(), deliver=self.events.put
        )
        self.thread = threading.Thread(target=self.source.run, daemon=True)
        self.revision = 0

    def start(self) -> None:
        self.thread.start()

    def next(self) -> str:
        """The next event, apart from a mere Heard, which comes about once a second."""
        while isinstance(event := self.events.get(timeout=10), Heard) and not event.relist_reason:
            pass
        match event:
            case ListingStarted(reason=reason):
                return f"started {reason}"
            case Upserted(object=found):
                return f"+ {identity_text(identity(found))}"
            case Removed(key=key):
                return f"- {key}"
            case ListingEnded(revision=revision):
                return f"ended {revision}"
            case Heard(relist_reason=reason):
                return f"heard {reason}"

    def subscribe(self, *names: NamespacedName) -> None:
        """The next subscription; revisions count from 1."""
        self.revision += 1
        self.source.subscribe(frozenset(names), self.revision)

    def expect(self, *events: str) -> None:
        assert [self.next() for _ in events] == list(events)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Running]]:
    monkeypatch.setattr(server_judgement, "_BACKOFF", Backoff(first=0.01, longest=10.0))
    made: list[Running] = []
    with api_server(tmp_path) as server:

        def build(*fixed: Resource) -> Running:
            made.append(Running(server, *fixed))
            return made[-1]

        yield build
        for running in made:
            running.source.stop()
    for running in made:
        running.thread.join(5)
        assert not running.thread.is_alive()


def test_a_source_without_subscriptions_is_synced_at_once(make: Callable[..., Running]) -> None:
    running = make()
    running.start()
    running.expect("started start", "ended 0")


def test_a_listing_ends_when_all_collections_are_listed(make: Callable[..., Running]) -> None:
    running = make(resources.pods_of_node("here"), resources.node("here"))
    running.cluster.objects["metadata.name=here"] = [{"metadata": {"name": "here"}}]
    running.start()
    running.expect("started start", "+ Node/here", "ended 0")


def test_a_subscribed_service_is_delivered_and_then_confirmed(make: Callable[..., Running]) -> None:
    running = make()
    running.start()
    running.expect("started start", "ended 0")
    running.cluster.objects["metadata.name=kube-dns"] = [service(DNS)]
    running.subscribe(DNS)
    running.expect("+ Service/kube-system/kube-dns", "ended 1")


def test_a_subscription_to_a_missing_service_is_confirmed_too(make: Callable[..., Running]) -> None:
    running = make()
    running.start()
    running.expect("started start", "ended 0")
    running.subscribe(WEB)
    running.expect("ended 1")


def test_changes_are_delivered_as_they_come(make: Callable[..., Running]) -> None:
    running = make()
    running.start()
    running.expect("started start", "ended 0")
    running.subscribe(WEB)
    running.expect("ended 1")
    added, moved = service(WEB), service(WEB, "10.0.0.2")
    events = [{"type": "ADDED", "object": added}, {"type": "MODIFIED", "object": added}]
    events += [{"type": "MODIFIED", "object": moved}, {"type": "DELETED", "object": moved}]
    running.cluster.happens("metadata.name=web", *events)
    running.expect("+ Service/default/web", "+ Service/default/web", "- default/web")


def test_an_old_subscription_ends_only_when_the_new_one_is_complete(make: Callable[..., Running]) -> None:
    running = make()
    running.cluster.objects = {"metadata.name=kube-dns": [service(DNS)], "metadata.name=web": [service(WEB)]}
    running.start()
    running.subscribe(DNS)
    running.expect("started start", "ended 0")
    running.expect("+ Service/kube-system/kube-dns", "ended 1")
    running.subscribe(WEB)
    running.expect("+ Service/default/web", "- kube-system/kube-dns", "ended 2")


def test_everything_is_delivered_again_while_the_api_server_is_away(make: Callable[..., Running]) -> None:
    running = make()
    running.cluster.objects["metadata.name=web"] = [service(WEB)]
    running.start()
    running.subscribe(WEB)
    running.expect("started start", "ended 0", "+ Service/default/web", "ended 1")
    running.cluster.answering.clear()
    running.source.relist()
    running.expect("started requested", "+ Service/default/web", "ended 1")
    running.cluster.answering.set()


def test_a_new_list_after_an_expiry_is_delivered_as_changes(make: Callable[..., Running]) -> None:
    running = make()
    running.cluster.objects["metadata.name=web"] = [service(WEB)]
    running.start()
    running.subscribe(WEB)
    running.expect("started start", "ended 0", "+ Service/default/web", "ended 1")
    running.cluster.objects.clear()
    expired = {"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old"}}
    running.cluster.happens("metadata.name=web", expired)
    running.expect("- default/web", "heard expired")


def test_more_than_twenty_subscribed_services_are_one_watch_without_a_gap(make: Callable[..., Running]) -> None:
    running = make()
    running.cluster.objects = {"metadata.name=web": [service(WEB)], "/api/v1/services": [service(WEB), service(DNS)]}
    running.start()
    running.subscribe(WEB)
    running.expect("started start", "ended 0", "+ Service/default/web", "ended 1")
    many = [NamespacedName("default", f"s{i}") for i in range(20)]
    running.subscribe(WEB, *many)
    assert running.next() == "+ Service/kube-system/kube-dns"
    assert running.next() == "ended 2"


def test_every_revision_is_confirmed_even_if_nothing_is_new(make: Callable[..., Running]) -> None:
    running = make()
    running.start()
    running.expect("started start", "ended 0")
    running.subscribe(WEB)
    running.expect("ended 1")
    running.subscribe(WEB)
    running.expect("ended 2")
    running.subscribe()
    running.expect("ended 3")


def test_late_events_of_a_list_watch_that_has_ended_are_ignored(
    make: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A subscription to a Service ends and begins again while an event of its first watch is on its way."""
    numbers = itertools.count(1)
    second_began, speak, spoken = threading.Event(), threading.Event(), threading.Event()
    gone = Changed(parse_service(service(WEB)), 1.0)

    def run(self: listwatch.ListWatch) -> None:
        if next(numbers) == 2:
            second_began.set()
        else:
            self._deliver(Listed((), "start", 1.0, 1.0))
            speak.wait(10)
            self._deliver(gone)
            self._deliver(Listed((gone.object,), "expired", 1.0, 1.0))
            spoken.set()

    monkeypatch.setattr(listwatch.ListWatch, "run", run)
    running = make()
    running.start()
    running.expect("started start", "ended 0")
    running.subscribe(WEB)
    running.expect("ended 1")
    running.subscribe()
    running.expect("ended 2")
    running.subscribe(WEB)
    assert second_began.wait(10)
    speak.set()
    assert spoken.wait(10)
    running.source.relist()
    running.expect("started requested", "ended 2")


# --- after this process was stopped for a while -----------------------------------------------------------------------


def ended_as_of(running: Running) -> float:
    """`as_of` of the next listing that ends."""
    while not isinstance(event := running.events.get(timeout=10), ListingEnded):
        pass
    return event.as_of


def test_a_listing_as_of_now_asks_the_server_and_has_what_happened_meanwhile(
    make: Callable[..., Running],
) -> None:
    """The watch does not report it, since its connection died while this process was stopped."""
    running = make()
    running.cluster.objects["metadata.name=web"] = [service(WEB)]
    running.start()
    running.subscribe(WEB)
    running.expect("started start", "ended 0", "+ Service/default/web", "ended 1")
    running.cluster.objects["metadata.name=web"] = [service(WEB, "10.0.0.2")]
    woke = time.monotonic()
    running.source.relist(woke)
    running.expect("+ Service/default/web", "heard resumed", "started requested", "+ Service/default/web")
    assert ended_as_of(running) >= woke


def test_while_the_server_is_away_a_listing_as_of_now_waits_and_any_other_is_delivered(
    make: Callable[..., Running],
) -> None:
    running = make()
    running.cluster.objects["metadata.name=web"] = [service(WEB)]
    running.start()
    running.subscribe(WEB)
    running.expect("started start", "ended 0", "+ Service/default/web", "ended 1")
    running.cluster.answering.clear()
    woke = time.monotonic()
    running.source.relist(woke)
    running.source.relist()
    running.expect("started requested", "+ Service/default/web")
    assert ended_as_of(running) < woke
    running.cluster.objects.clear()
    running.cluster.answering.set()
    running.expect("- default/web", "heard resumed", "started requested")
    assert ended_as_of(running) >= woke


def test_a_listing_as_of_then_is_delivered_at_once_when_all_was_listed_since(make: Callable[..., Running]) -> None:
    woke = time.monotonic()
    running = make(resources.node("here"))
    running.start()
    running.expect("started start", "ended 0")
    running.cluster.answering.clear()
    running.source.relist(woke)
    running.expect("started requested", "ended 0")
    running.cluster.answering.set()


def test_a_source_without_subscriptions_is_as_of_now(make: Callable[..., Running]) -> None:
    running = make()
    running.start()
    running.expect("started start", "ended 0")
    woke = time.monotonic()
    running.source.relist(woke)
    assert ended_as_of(running) >= woke


# --- contact with the server ------------------------------------------------------------------------------------------


def heard(running: Running, holds: Callable[[Heard], bool]) -> Heard:
    """The next Heard for which this holds."""
    while not (isinstance(event := running.events.get(timeout=10), Heard) and holds(event)):
        pass
    return event


def test_a_part_that_is_refused_is_not_hidden_by_one_that_is_heard(make: Callable[..., Running]) -> None:
    running = make(resources.pods_of_node("here"), resources.node("here"))
    running.cluster.refused = "/api/v1/pods"
    running.start()
    found = heard(running, lambda each: each.trouble is not None)
    assert found.heard_at is None
    assert found.trouble and found.trouble.kind == TroubleKind.REFUSED and "list pods" in found.trouble.message
    running.cluster.refused = ""
    heard(running, lambda each: each.trouble is None and each.heard_at is not None)


def test_a_source_without_subscriptions_has_nothing_to_hear(make: Callable[..., Running]) -> None:
    running = make()
    running.start()
    assert heard(running, lambda _: True) == Heard(NOTHING_TO_HEAR)
    running.subscribe(WEB)
    heard(running, lambda each: each.heard_at not in (None, NOTHING_TO_HEAR))
    running.subscribe()
    assert heard(running, lambda each: each.heard_at == NOTHING_TO_HEAR).trouble is None


OUTAGE, REFUSAL, ABSENCE = (Trouble(kind, 5.0 - number, kind.value) for number, kind in enumerate(TroubleKind))
WORST = {
    "none": ([], None),
    "one": ([OUTAGE], OUTAGE),
    "a refusal is worse than an outage that is older": ([REFUSAL, replace(OUTAGE, since=1.0)], REFUSAL),
    "an absent CRD is worse than an outage": ([OUTAGE, ABSENCE], ABSENCE),
    "two of a kind last since the first": (
        [REFUSAL, replace(REFUSAL, since=2.0, message="nodes")],
        Trouble(TroubleKind.REFUSED, 2.0, "nodes; refused"),
    ),
    "the same twice is one": ([REFUSAL, replace(REFUSAL, since=9.0)], REFUSAL),
}


@pytest.mark.parametrize("case", WORST)
def test_the_worst_trouble_is_reported(case: str) -> None:
    troubles, found = WORST[case]
    assert worst_trouble(troubles) == found


def test_a_list_watch_that_fails_fails_the_source(
    make: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_self: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(listwatch.ListWatch, "run", broken)
    running = make(resources.node("here"))
    with pytest.raises(RuntimeError, match="broken"):
        running.source.run()
    running.thread.start()  # for the fixture, which waits for its end
