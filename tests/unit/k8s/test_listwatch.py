"""List and watch, on what an API server in trouble answers: a scripted one, on a real socket.

What a healthy, a killed and a silent API server does is in tests/cluster.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from config.backoff import Backoff
from config.domain.ids import NamespacedName, ObjectKey, PolicyKind
from config.settings import RedirectSettings
from k8s.api import listwatch, server_judgement
from k8s.api.client import Api, Timeouts
from k8s.api.errors import ApiError, api_error
from k8s.api.listwatch import ListWatch
from k8s.api.resource import Resource
from k8s.api.stream_events import Bookmarked, Changed, Deleted, Failed, Listed, StreamEvent
from k8s.api.trouble import Trouble, TroubleKind
from k8s.objects.model import KubeObject, Pod, Service
from k8s.sources import resources
from k8s.sources.resources import reducer
from tests.unit.api_server import (
    Answer,
    ApiServer,
    answer,
    api_server,
    hang,
    lines,
    page,
    refusal,
    silent_stream,
    stream,
)

PODS = resources.pods_of_node("here")


def raw(name: str, version: int = 8, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "d", "resourceVersion": str(version)}, **more}


def event(kind: str, name: str, version: int = 8) -> dict[str, Any]:
    return {"type": kind, "object": raw(name, version)}


def bookmark(version: int) -> dict[str, Any]:
    return {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(version)}}}


def error(code: int, reason: str) -> dict[str, Any]:
    return {"type": "ERROR", "object": {"kind": "Status", "code": code, "reason": reason, "message": "too old"}}


class Running:
    def __init__(self, server: ApiServer, resource: Resource) -> None:
        self.server = server
        self._events: SimpleQueue[StreamEvent] = SimpleQueue()
        reduce = reducer(resource, RedirectSettings())
        self.listwatch = ListWatch(Api(str(server.kubeconfig)), resource, reduce, self._events.put)
        self.thread = threading.Thread(target=self.listwatch.run, daemon=True)
        self.thread.start()

    def next(self) -> str:
        """The next event about objects."""
        while True:
            match self._events.get(timeout=10):
                case Listed(objects=objects, reason=reason):
                    return f"{reason}: {' '.join(map(_name, objects))}".rstrip()
                case Changed(object=found):
                    return f"+ {_name(found)}"
                case Deleted(object_id=(_, key)):
                    return f"- {_key_name(key)}"

    def next_trouble(self) -> Trouble:
        while True:
            event = self._events.get(timeout=10)
            if isinstance(event, Failed):
                return event.trouble

    def next_contact(self) -> str:
        """The next event about the server: `heard`, or the kind of trouble and its message."""
        while True:
            match self._events.get(timeout=10):
                case Bookmarked():
                    return "heard"
                case Failed(trouble=trouble):
                    return f"{trouble.kind}: {trouble.message}"

    def stop(self) -> None:
        self.listwatch.stop()
        self.thread.join(5)
        assert not self.thread.is_alive()


def _name(found: KubeObject) -> str:
    return found.key.name if isinstance(found, Pod) else "?"


def _key_name(key: ObjectKey) -> str:
    return key if isinstance(key, str) else key.name


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with api_server(tmp_path) as made:
        yield made


@pytest.fixture
def start(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Running]]:
    monkeypatch.setattr(server_judgement, "_BACKOFF", Backoff(first=0.01, longest=10.0))
    monkeypatch.setattr(server_judgement, "_ABSENT_BACKOFF", Backoff(first=0.01, longest=10.0))
    monkeypatch.setattr(server_judgement, "_ABSENT_OPTIONAL_BACKOFF", Backoff(first=0.01, longest=0.01))
    monkeypatch.setattr(server_judgement, "_WELL_SECONDS", 0.0)
    made: list[Running] = []

    def build(resource: Resource = PODS) -> Running:
        made.append(Running(server, resource))
        return made[-1]

    yield build
    for each in made:
        each.stop()


def test_a_list_is_read_page_by_page_and_watched_from_its_version(
    server: ApiServer, start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listwatch, "PAGE_SIZE", 1)
    server.will(page(raw("a"), more="token"), page(raw("b"), version="9"), silent_stream())
    running = start(resources.ALL_PODS)
    assert running.next() == "start: a b"
    first, second, watch = (server.request() for _ in range(3))
    assert (first["limit"], first.get("resourceVersion")) == ("1", None)
    assert second["continue"] == "token"
    assert (watch["watch"], watch["resourceVersion"], watch["allowWatchBookmarks"]) == ("1", "9", "true")


def test_a_continue_token_that_expired_starts_the_list_again(server: ApiServer, start: Callable[..., Running]) -> None:
    server.will(page(raw("a"), more="token"), refusal(410, "Expired"), page(raw("b")), silent_stream())
    assert start(resources.ALL_PODS).next() == "expired: b"


def test_events_may_be_cut_anywhere(server: ApiServer, start: Callable[..., Running]) -> None:
    data = lines(event("ADDED", "a"), event("MODIFIED", "a"), event("DELETED", "a"))
    server.will(page(), silent_stream(data[:30], data[30:31], data[31:]))
    running = start()
    assert [running.next() for _ in range(4)] == ["start:", "+ a", "+ a", "- a"]


def test_a_watch_that_ends_goes_on_from_the_newest_version_or_bookmark(
    server: ApiServer, start: Callable[..., Running]
) -> None:
    server.will(page(version="7"), stream(lines(event("ADDED", "a", 8))), stream(lines(bookmark(12))), silent_stream())
    running = start()
    assert [running.next() for _ in range(2)] == ["start:", "+ a"]
    assert [server.request().get("resourceVersion") for _ in range(4)] == ["0", "7", "8", "12"]


EXPIRIES = {
    "as an event": stream(lines(error(410, "Expired"))),
    "as an answer": refusal(410, "Expired"),
}


@pytest.mark.parametrize("how", EXPIRIES)
def test_a_version_that_expired_leads_to_a_new_list(how: str, server: ApiServer, start: Callable[..., Running]) -> None:
    server.will(page(raw("a")), EXPIRIES[how], page(raw("b"), version="20"), silent_stream())
    running = start()
    assert [running.next(), running.next()] == ["start: a", "expired: b"]
    assert [server.request().get("resourceVersion") for _ in range(4)] == ["0", "7", "7", "20"]


TROUBLES = {
    "an internal error": refusal(500, "InternalError"),
    "too many requests": refusal(429, "TooManyRequests"),
    "an error event": stream(lines(error(500, "InternalError"))),
    "a line that is no JSON": stream(b"{]\n"),
    "a line that is no object": stream(b"[]\n"),
    "an event without an object": stream(b'{"type": "ADDED"}\n'),
    "no HTTP at all": lambda handler: handler.wfile.write(b"what?\r\n\r\n"),
    "a connection that is closed": lambda handler: handler.connection.shutdown(socket.SHUT_RDWR),
}


@pytest.mark.parametrize("what", TROUBLES)
def test_after_trouble_the_watch_goes_on(what: str, server: ApiServer, start: Callable[..., Running]) -> None:
    server.will(page(raw("a")), TROUBLES[what], silent_stream(lines(event("ADDED", "b"))))
    running = start()
    assert [running.next(), running.next()] == ["start: a", "+ b"]
    assert [server.request().get("resourceVersion") for _ in range(3)] == ["0", "7", "7"]


@pytest.mark.parametrize("what", ["an internal error", "too many requests", "no HTTP at all"])
def test_after_trouble_before_the_first_list_it_is_listed(
    what: str, server: ApiServer, start: Callable[..., Running]
) -> None:
    server.will(TROUBLES[what], page(raw("a")), silent_stream())
    assert start().next() == "start: a"


def test_silence_ends_a_watch_and_it_goes_on(
    server: ApiServer, start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_judgement, "SILENCE_SECONDS", 0.1)
    server.will(page(), silent_stream(lines(event("ADDED", "a", 9))), silent_stream(lines(event("ADDED", "b"))))
    running = start()
    assert [running.next() for _ in range(3)] == ["start:", "+ a", "+ b"]
    assert [server.request().get("resourceVersion") for _ in range(3)] == ["0", "7", "9"]


def test_an_unknown_type_of_event_is_ignored(server: ApiServer, start: Callable[..., Running]) -> None:
    server.will(page(), silent_stream(lines(event("RENAMED", "a"), event("ADDED", "b"))))
    running = start()
    assert [running.next(), running.next()] == ["start:", "+ b"]


def test_an_object_that_cannot_be_used_does_not_hide_the_others(
    server: ApiServer, start: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    server.will(page(raw("a", status={"podIP": 5}), raw("b")), silent_stream())
    assert start().next() == "start: b"
    assert "status.podIP" in caplog.text


BY_KIND: dict[str, tuple[Resource, dict[str, Any], dict[str, Any]]] = {
    "a Pod": (PODS, {"status": {"podIP": "10.1.0.5"}}, {"status": {"podIP": "10.1.0.x"}}),
    "a Pod whose address reaches nobody": (PODS, {}, {"status": {"podIPs": [{"ip": "127.0.0.1"}]}}),
    "a Pod's uid": (PODS, {}, {"metadata": {"uid": "a/b"}}),
    "a Node": (resources.node("here"), {}, {"metadata": {"labels": {"a": 3}}}),
    "a Service's name": (resources.ALL_SERVICES, {"spec": {}}, {"metadata": {"name": "A_B"}}),
}
"""Kind of object -> its collection, and what makes an object of it good, and what makes it bad."""


def changed(name: str, *parts: dict[str, Any]) -> dict[str, Any]:
    found = raw(name)
    for part in parts:
        for key, value in part.items():
            found[key] = {**found.get(key, {}), **value}
    return found


@pytest.mark.parametrize("case", BY_KIND)
def test_p5_an_object_that_can_no_longer_be_understood_counts_as_deleted_and_comes_back(
    case: str, server: ApiServer, start: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    resource, good, bad = BY_KIND[case]
    name = bad.get("metadata", {}).get("name", "a")
    states = [changed(name, good), changed(name, good, bad), changed(name, good, bad), changed(name, good)]
    events = [{"type": "MODIFIED", "object": each} for each in states]
    if name != "a":  # with such a name there is no good state
        del events[0], events[-1]
    server.will(page(), silent_stream(lines(*events, bookmark(9))))
    running = start(resource)
    delivered = [running.next() for _ in range(len(events) + 1)]
    gone, there = f"- {name}", "+ a" if resource == PODS else "+ ?"
    assert delivered == ["start:", *([gone, gone] if name != "a" else [there, gone, gone, there])]
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert f"/{name}: " in warning and "counts as deleted" in warning


@pytest.mark.parametrize("case", BY_KIND)
def test_a_deletion_needs_the_metadata_only(case: str, server: ApiServer, start: Callable[..., Running]) -> None:
    resource, good, bad = BY_KIND[case]
    gone = changed("a", good, bad)
    server.will(page(), silent_stream(lines({"type": "DELETED", "object": gone})))
    running = start(resource)
    assert [running.next(), running.next()] == ["start:", f"- {gone['metadata']['name']}"]


@pytest.mark.parametrize("kind", list(PolicyKind))
def test_p9_a_policy_that_cannot_be_understood_is_an_invalid_one_and_can_be_deleted(
    kind: PolicyKind, server: ApiServer, start: Callable[..., Running]
) -> None:
    odd = {"metadata": {"name": "a", "annotations": 3, "labels": [4]}, "spec": "?"}
    events = [{"type": each, "object": odd} for each in ("ADDED", "DELETED")]
    server.will(page(), silent_stream(lines(*events)))
    running = start(resources.policies(kind))
    assert [running.next() for _ in range(3)] == ["start:", "+ ?", "- a"]


def test_a_service_that_cannot_be_understood_has_no_addresses_and_says_why() -> None:
    read = reducer(resources.ALL_SERVICES, RedirectSettings())
    found = read({"metadata": {"name": "s", "namespace": "n"}, "spec": {"clusterIP": "10.0.0.x"}})
    assert found == Service(
        key=NamespacedName("n", "s"),
        faults=("spec.clusterIP: '10.0.0.x' is wrong; it must be an IP address or None",),
    )


def test_a_warning_about_an_object_goes_with_it(
    server: ApiServer, start: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    odd = changed("a", {"status": {"podIP": "x"}})
    events = [{"type": each, "object": odd} for each in ("ADDED", "MODIFIED", "DELETED", "ADDED")]
    server.will(
        page(odd), stream(lines(*events)), refusal(410, "Expired"), page(odd), silent_stream(lines(bookmark(9)))
    )
    running = start()
    while not running.next().startswith("expired"):
        pass
    assert running.next_contact() == "heard"
    warnings = [each for each in caplog.records if "status.podIP" in each.getMessage()]
    assert len(warnings) == 2, "once for each life of the object"


# --- where a list comes from ------------------------------------------------------------------------------------------

OF_EVERY_AGENT = {
    "the Pods of its node": PODS,
    "its Node": resources.node("here"),
    "policies": resources.policies(PolicyKind.LOCAL_REDIRECT),
    "a Service that a policy names": next(iter(resources.resources_for(frozenset({NamespacedName("d", "web")})))),
}


@pytest.mark.parametrize("what", OF_EVERY_AGENT)
def test_what_every_agent_lists_comes_from_the_servers_cache(
    what: str, server: ApiServer, start: Callable[..., Running]
) -> None:
    """A limit, or no version at all, sends an API server before 1.32 to etcd, which reads the Pods of all nodes."""
    server.will(page(), silent_stream())
    start(OF_EVERY_AGENT[what])
    asked = server.request()
    assert (asked.get("resourceVersion"), asked.get("limit"), asked.get("resourceVersionMatch")) == ("0", None, None)


def test_a_later_list_is_never_older_than_what_was_seen(server: ApiServer, start: Callable[..., Running]) -> None:
    server.will(page(), stream(lines(bookmark(12), error(410, "Expired"))), page(), silent_stream())
    start()
    again = [server.request() for _ in range(3)][2]
    assert (again["resourceVersion"], again["resourceVersionMatch"]) == ("12", "NotOlderThan")
    assert "limit" not in again


def test_a_server_that_never_reaches_our_version_is_asked_for_what_it_has(
    server: ApiServer, start: Callable[..., Running]
) -> None:
    """An etcd that was restored from a backup counts on from its old version."""
    body = {"reason": "Timeout", "details": {"causes": [{"reason": "ResourceVersionTooLarge"}]}}
    too_large = [lambda handler: handler.reply(504, body)] * 4
    server.will(page(version="90"), refusal(410, "Expired"), *too_large, page(raw("a"), version="5"), silent_stream())
    running = start()
    assert [running.next(), running.next()] == ["start:", "expired: a"]
    versions = [server.request().get("resourceVersion") for _ in range(8)]
    assert versions == ["0", "90", "90", "90", "90", "90", None, "5"]


def test_a_refreshed_list_is_as_new_as_the_request_for_it(server: ApiServer, start: Callable[..., Running]) -> None:
    server.will(page(raw("a")), silent_stream(), page(raw("b"), version="9"), silent_stream())
    running = start()
    assert running.next() == "start: a"
    server.request(), server.request()
    running.listwatch.refresh()
    assert running.next() == "resumed: b"
    assert [server.request()["resourceVersion"] for _ in range(2)] == ["7", "9"]


# --- a kind that is not there -----------------------------------------------------------------------------------------

POLICIES = resources.policies(PolicyKind.LOCAL_REDIRECT)
BALANCING = resources.policies(PolicyKind.BALANCING)
MISSING = refusal(404, "NotFound")
NO_GROUP = answer({"groups": [{"name": "apps", "versions": [{"groupVersion": "apps/v1"}]}]})
GROUP = answer({"groups": [{"name": "balancing.elf.io", "versions": [{"groupVersion": "balancing.elf.io/v1beta1"}]}]})
BOTH_KINDS = answer({"resources": [{"name": "localredirectpolicies"}, {"name": "balancingpolicies"}]})
ONE_KIND = answer({"resources": [{"name": "localredirectpolicies"}]})
ABSENT = {
    "no such group": (MISSING, NO_GROUP),
    "no such kind in the group": (MISSING, GROUP, ONE_KIND),
    "discovery is not for us": (MISSING, refusal(403, "Forbidden")),
}
GLITCHES = {
    "the server says that it has the kind": (MISSING, GROUP, BOTH_KINDS),
    "discovery fails": (MISSING, refusal(503, "ServiceUnavailable")),
    "a proxy knows nothing at all": (MISSING, MISSING),
    "discovery makes no sense": (MISSING, answer({"groups": [5]})),
    "absent once": (MISSING, NO_GROUP),
    "absent twice": (MISSING, NO_GROUP) * 2,
    "absent, not for a moment, and absent again": (
        *(MISSING, NO_GROUP) * 2,
        refusal(503, "ServiceUnavailable"),
        *(MISSING, NO_GROUP) * 2,
    ),
}


@pytest.mark.parametrize("how", ABSENT)
def test_a_crd_that_may_be_absent_is_empty_at_once_until_it_comes(
    how: str, server: ApiServer, start: Callable[..., Running]
) -> None:
    server.will(*ABSENT[how], *ABSENT[how], page(raw("a")), silent_stream())
    running = start(BALANCING)
    assert [running.next() for _ in range(3)] == ["absent:", "absent:", "absent: ?"]


@pytest.mark.parametrize("resource", [POLICIES, BALANCING], ids=["the one that is needed", "the other"])
@pytest.mark.parametrize("what", GLITCHES)
def test_a_404_for_a_moment_removes_nothing(
    what: str, resource: Resource, server: ApiServer, start: Callable[..., Running]
) -> None:
    server.will(page(raw("a")), *GLITCHES[what], page(raw("a"), raw("b")), silent_stream())
    running = start(resource)
    assert [running.next(), running.next()] == ["start: ?", "absent: ? ?"]


def test_a_kind_of_the_core_is_never_absent(server: ApiServer, start: Callable[..., Running]) -> None:
    server.will(page(raw("a")), *[MISSING] * 5, page(raw("b"), version="9"), silent_stream())
    running = start()
    assert [running.next(), running.next()] == ["start: a", "absent: b"]


@pytest.mark.parametrize("how", [each for each in ABSENT if each != "no such kind in the group"])
@pytest.mark.parametrize("before", [(), (page(raw("a")),)], ids=["while the agent was away", "under a running agent"])
def test_a_crd_that_was_deleted_has_no_objects_once_that_is_sure(
    before: tuple[Answer, ...],
    how: str,
    server: ApiServer,
    start: Callable[..., Running],
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.will(*before, *ABSENT[how] * 4, page(raw("b")), silent_stream())
    running = start(POLICIES)
    delivered = [running.next() for _ in range(len(before) + 3)]
    assert delivered[-3:] == ["absent:", "absent:", "absent: ?"]
    assert "kubectl apply -f k8s/crd.yaml" in caplog.text


def test_a_crd_that_is_absent_is_reported_as_trouble(server: ApiServer, start: Callable[..., Running]) -> None:
    """At first it is reported as an outage, since one answer proves nothing."""
    server.will(*(MISSING, NO_GROUP) * 3, page(), silent_stream())
    running = start(POLICIES)
    assert [running.next_contact().partition(":")[0] for _ in range(4)] == ["outage", "outage", "absent", "heard"]


# --- Retry-After ------------------------------------------------------------------------------------------------------

RETRY_AFTER = {
    "in the header": ({"Retry-After": "7"}, {}, 7.0),
    "in the details": ({}, {"details": {"retryAfterSeconds": 4}}, 4.0),
    "in both: the longer one": ({"Retry-After": "2"}, {"details": {"retryAfterSeconds": 4}}, 4.0),
    "of a day: no more than five minutes": ({"Retry-After": "86400"}, {}, 300.0),
    "in the past": ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, {}, 0.0),
    "that makes no sense": ({"Retry-After": "soon"}, {"details": 5}, 0.0),
    "none": ({}, {}, 0.0),
}


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("where", RETRY_AFTER)
def test_retry_after_is_read(where: str, status: int, server: ApiServer) -> None:
    headers, body, seconds = RETRY_AFTER[where]
    server.will(lambda handler: handler.reply(status, body, headers))
    with pytest.raises(ApiError) as caught:
        Api(str(server.kubeconfig)).get("/", {})
    assert caught.value.retry_after == seconds


def test_a_date_as_retry_after_is_read() -> None:
    assert 50 < api_error(429, {}, retry_after=formatdate(time.time() + 60, usegmt=True)).retry_after <= 60


BUSY = {
    "a list": ((), refusal(429, "TooManyRequests", {"Retry-After": "1"})),
    "a list of a server that is down": ((), refusal(503, "ServiceUnavailable", {"Retry-After": "1"})),
    "a watch": ((page(),), refusal(429, "TooManyRequests", {"Retry-After": "1"})),
    "a watch that ends": (
        (page(),),
        stream(lines({"type": "ERROR", "object": {"code": 429, "details": {"retryAfterSeconds": 1}}})),
    ),
}


@pytest.mark.parametrize("what", BUSY)
def test_retry_after_is_respected_even_when_there_is_something_to_do(
    what: str, server: ApiServer, start: Callable[..., Running]
) -> None:
    before, busy = BUSY[what]
    server.will(*before, busy, page(), silent_stream())
    began = time.monotonic()
    running = start()
    running.next_trouble()
    running.listwatch.refresh()
    for _ in range(len(before) + 2):
        server.request()
    assert time.monotonic() - began >= 1


# --- contact with the server ------------------------------------------------------------------------------------------

RIGHTS = {
    "to list": ((refusal(403, "Forbidden"),), PODS, "refused: the right to list pods is missing"),
    "to watch": (
        (page(), refusal(403, "Forbidden")),
        POLICIES,
        "refused: the right to watch localredirectpolicies.balancing.elf.io is missing",
    ),
    "to anything": ((refusal(401, "Unauthorized"),), PODS, "refused: the API server does not accept our credentials"),
}


@pytest.mark.parametrize("what", RIGHTS)
def test_a_refusal_names_the_right_and_lasts_from_its_first(
    what: str, server: ApiServer, start: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    answers, resource, message = RIGHTS[what]
    server.will(*answers, answers[-1], page(), silent_stream())
    running = start(resource)
    first, second = (running.next_trouble() for _ in range(2))
    assert f"{first.kind}: {first.message}".replace(f"{resource}: ", "").startswith(message)
    assert (second.kind, second.since) == (first.kind, first.since)
    assert message.partition(": ")[2] in caplog.text


@pytest.mark.parametrize("what", TROUBLES)
def test_an_outage_is_reported_with_its_beginning_until_the_server_answers(
    what: str, server: ApiServer, start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_judgement, "_WELL_SECONDS", 0.5)
    monkeypatch.setattr(server_judgement, "_PROBATION_SECONDS", 1.0)
    server.will(page(), TROUBLES[what], TROUBLES[what], silent_stream(), silent_stream())
    running = start()
    first, second = (running.next_trouble() for _ in range(2))
    assert (first.kind, second.since) == (TroubleKind.OUTAGE, first.since)
    assert running.next_contact() == "heard"


def test_a_silent_watch_that_the_server_accepts_again_counts_as_heard(
    server: ApiServer, start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_judgement, "SILENCE_SECONDS", 0.1)
    server.will(page(), silent_stream(), silent_stream(), silent_stream())
    running = start()
    assert [running.next_contact() for _ in range(3)] == ["heard"] * 3


def test_a_server_that_takes_a_watch_and_never_answers_is_an_outage(
    server: ApiServer, start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k8s.api.client.TIMEOUTS", Timeouts(connect=0.2, read=0.2))
    server.will(page(), hang, silent_stream())
    running = start()
    assert running.next_contact().startswith("outage: ")
    assert running.next_contact() == "heard"


def test_an_outage_is_logged_once_and_so_is_its_end(
    server: ApiServer, start: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    closed, nonsense = TROUBLES["a connection that is closed"], TROUBLES["no HTTP at all"]
    server.will(page(), closed, nonsense, closed, silent_stream(lines(event("ADDED", "b"))))
    running = start()
    assert [running.next(), running.next()] == ["start:", "+ b"]
    logged = [record.getMessage() for record in caplog.records if record.name == "k8s.api.trouble_log"]
    assert len(logged) == 2
    assert "the last known state stays in force" in logged[0]
    assert "answers again" in logged[1]


def test_another_kind_of_trouble_is_logged_too(
    server: ApiServer, start: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    server.will(page(), TROUBLES["a connection that is closed"], refusal(403, "Forbidden"), refusal(403, "Forbidden"))
    server.will(silent_stream(lines(event("ADDED", "b"))))
    running = start()
    assert [running.next(), running.next()] == ["start:", "+ b"]
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 2


def test_credentials_that_are_refused_are_read_again(server: ApiServer, start: Callable[..., Running]) -> None:
    def refuse_and_rotate(handler: Any) -> None:
        server.token_file.write_text("second")
        refusal(401, "Unauthorized")(handler)

    server.will(refuse_and_rotate, page(), silent_stream())
    assert start().next() == "start:"
    assert [server.request()["authorization"] for _ in range(2)] == ["Bearer first", "Bearer second"]


def test_a_silent_watch_stops_at_once(server: ApiServer, start: Callable[..., Running]) -> None:
    server.will(page(), silent_stream())
    running = start()
    assert running.next() == "start:"
    server.request(), server.request()
    running.stop()
