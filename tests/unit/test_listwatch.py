"""List and watch, on what an API server in trouble answers: a scripted one, on a real socket.

What a healthy, a killed and a silent API server does is in tests/cluster.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from config.settings import RedirectSettings
from k8s import listwatch, resources
from k8s.api import Api
from k8s.listwatch import Bookmarked, Changed, Deleted, Listed, ListWatch, StreamEvent, delay_seconds
from k8s.objects import KubeObject, NamespacedName, ObjectKey, Pod, PolicyKind, Service
from k8s.resources import Resource, reducer
from tests.unit.api_server import ApiServer, api_server, lines, page, refusal, silent_stream, stream

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
        match self._events.get(timeout=10):
            case Listed(objects=objects, reason=reason):
                return f"{reason}: {' '.join(map(_name, objects))}".rstrip()
            case Changed(object=found):
                return f"+ {_name(found)}"
            case Deleted(name=(_, key)):
                return f"- {_key_name(key)}"
            case Bookmarked():
                return "bookmark"

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
    monkeypatch.setattr(listwatch, "_FIRST_DELAY", 0.01)
    monkeypatch.setattr(listwatch, "_ABSENT_SECONDS", 0.01)
    monkeypatch.setattr(listwatch, "_WELL_SECONDS", 0.0)
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
    running = start()
    assert running.next() == "start: a b"
    first, second, watch = (server.request() for _ in range(3))
    assert (first["limit"], first["fieldSelector"]) == ("1", "spec.nodeName=here")
    assert second["continue"] == "token"
    assert (watch["watch"], watch["resourceVersion"], watch["allowWatchBookmarks"]) == ("1", "9", "true")
    assert watch["fieldSelector"] == "spec.nodeName=here"


def test_a_continue_token_that_expired_starts_the_list_again(server: ApiServer, start: Callable[..., Running]) -> None:
    server.will(page(raw("a"), more="token"), refusal(410, "Expired"), page(raw("b")), silent_stream())
    assert start().next() == "expired: b"


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
    assert [running.next() for _ in range(3)] == ["start:", "+ a", "bookmark"]
    assert [server.request().get("resourceVersion") for _ in range(4)] == [None, "7", "8", "12"]


EXPIRIES = {
    "as an event": stream(lines(error(410, "Expired"))),
    "as an answer": refusal(410, "Expired"),
}


@pytest.mark.parametrize("how", EXPIRIES)
def test_a_version_that_expired_leads_to_a_new_list(how: str, server: ApiServer, start: Callable[..., Running]) -> None:
    server.will(page(raw("a")), EXPIRIES[how], page(raw("b"), version="20"), silent_stream())
    running = start()
    assert [running.next(), running.next()] == ["start: a", "expired: b"]
    assert [server.request().get("resourceVersion") for _ in range(4)] == [None, "7", None, "20"]


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
def test_a_trouble_is_waited_out_and_the_watch_goes_on(
    what: str, server: ApiServer, start: Callable[..., Running]
) -> None:
    server.will(page(raw("a")), TROUBLES[what], silent_stream(lines(event("ADDED", "b"))))
    running = start()
    assert [running.next(), running.next()] == ["start: a", "+ b"]
    assert [server.request().get("resourceVersion") for _ in range(3)] == [None, "7", "7"]


@pytest.mark.parametrize("what", ["an internal error", "too many requests", "no HTTP at all"])
def test_a_trouble_before_the_first_list_is_waited_out(
    what: str, server: ApiServer, start: Callable[..., Running]
) -> None:
    server.will(TROUBLES[what], page(raw("a")), silent_stream())
    assert start().next() == "start: a"


def test_silence_ends_a_watch_and_it_goes_on(
    server: ApiServer, start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listwatch, "SILENCE_SECONDS", 0.1)
    server.will(page(), silent_stream(lines(event("ADDED", "a", 9))), silent_stream(lines(event("ADDED", "b"))))
    running = start()
    assert [running.next() for _ in range(3)] == ["start:", "+ a", "+ b"]
    assert [server.request().get("resourceVersion") for _ in range(3)] == [None, "7", "9"]


def test_an_unknown_kind_of_event_is_passed_over(server: ApiServer, start: Callable[..., Running]) -> None:
    server.will(page(), silent_stream(lines(event("RENAMED", "a"), event("ADDED", "b"))))
    running = start()
    assert [running.next(), running.next()] == ["start:", "+ b"]


def test_an_object_that_can_not_be_used_keeps_nobody_else_out(
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
"""Kind of object -> where it is read, and what makes it good, and what bad."""


def changed(name: str, *parts: dict[str, Any]) -> dict[str, Any]:
    found = raw(name)
    for part in parts:
        for key, value in part.items():
            found[key] = {**found.get(key, {}), **value}
    return found


@pytest.mark.parametrize("case", BY_KIND)
def test_p5_an_object_that_can_not_be_understood_any_more_counts_as_deleted_and_comes_back(
    case: str, server: ApiServer, start: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    resource, good, bad = BY_KIND[case]
    name = bad.get("metadata", {}).get("name", "a")
    states = [changed(name, good), changed(name, good, bad), changed(name, good, bad), changed(name, good)]
    events = [{"type": "MODIFIED", "object": each} for each in states]
    if name != "a":  # there is no good state of such a name
        del events[0], events[-1]
    server.will(page(), silent_stream(lines(*events, bookmark(9))))
    running = start(resource)
    told = [running.next() for _ in range(len(events) + 2)]
    gone, there = f"- {name}", "+ a" if resource == PODS else "+ ?"
    assert told == ["start:", *([gone, gone] if name != "a" else [there, gone, gone, there]), "bookmark"]
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
def test_p9_a_policy_that_can_not_be_understood_is_an_invalid_one_and_can_be_deleted(
    kind: PolicyKind, server: ApiServer, start: Callable[..., Running]
) -> None:
    odd = {"metadata": {"name": "a", "annotations": 3, "labels": [4]}, "spec": "?"}
    events = [{"type": each, "object": odd} for each in ("ADDED", "DELETED")]
    server.will(page(), silent_stream(lines(*events)))
    running = start(resources.policies(kind))
    assert [running.next() for _ in range(3)] == ["start:", "+ ?", "- a"]


def test_a_service_that_can_not_be_understood_is_one_without_addresses_that_says_why() -> None:
    read = reducer(resources.ALL_SERVICES, RedirectSettings())
    found = read({"metadata": {"name": "s", "namespace": "n"}, "spec": {"clusterIP": "10.0.0.x"}})
    assert found == Service(
        key=NamespacedName("n", "s"),
        faults=("spec.clusterIP: '10.0.0.x' is wrong, must be an IP address or None",),
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
    while running.next() != "bookmark":
        pass
    told = [each for each in caplog.records if "status.podIP" in each.getMessage()]
    assert len(told) == 2, "once for each life of the object"


def test_a_crd_that_may_be_absent_is_empty_until_it_comes(server: ApiServer, start: Callable[..., Running]) -> None:
    server.will(refusal(404, "NotFound"), refusal(404, "NotFound"), page(raw("a")), silent_stream())
    running = start(resources.policies(PolicyKind.BALANCING))
    assert [running.next() for _ in range(3)] == ["absent:", "absent:", "absent: ?"]


def test_a_crd_that_must_be_there_is_waited_for_and_named(
    server: ApiServer, start: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    server.will(refusal(404, "NotFound"), page(raw("a")), silent_stream())
    assert start(resources.policies(PolicyKind.LOCAL_REDIRECT)).next() == "absent: ?"
    assert "kubectl apply -f k8s/crd.yaml" in caplog.text


def test_a_missing_right_is_named(
    server: ApiServer, start: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    server.will(refusal(403, "Forbidden"), page(), silent_stream())
    assert start().next() == "start:"
    assert "needs get, list and watch" in caplog.text


def test_an_outage_is_said_once_and_so_is_its_end(
    server: ApiServer, start: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    closed, nonsense = TROUBLES["a connection that is closed"], TROUBLES["no HTTP at all"]
    server.will(page(), closed, nonsense, closed, silent_stream(lines(event("ADDED", "b"))))
    running = start()
    assert [running.next(), running.next()] == ["start:", "+ b"]
    said = [record.getMessage() for record in caplog.records if record.name == "k8s.listwatch"]
    assert len(said) == 2
    assert "what it told last stays in force" in said[0]
    assert "answers again" in said[1]


def test_another_kind_of_trouble_is_said_too(
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


def test_delays_grow_are_bounded_and_spread() -> None:
    assert [delay_seconds(failures, 1.0) for failures in (1, 2, 3, 100)] == [0.25, 0.5, 1.0, 10.0]
    assert delay_seconds(1, 0.0) == 0.125
