"""What the controller sends when it writes, and what each answer of the API server means."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from k8s.api.client import Api
from k8s.status.api_writer import ApiWriter
from k8s.status.write_bodies import status_document, status_patch
from k8s.status.write_requests import EventWrite, StatusWrite, WriteAnswer, WriteResult
from tests.kubeconfig import write_kubeconfig
from tests.unit.verdicts import HELD, KEY, NOW

STATUS = StatusWrite(key=KEY, uid="u-1", status=HELD, former_reason="", decided_at=NOW)
EVENT = EventWrite(key=KEY, uid="u-1", reason="Conflict", message="lost", happened_at=NOW)


class Server:
    """Gives every request the same answer, and keeps the requests."""

    def __init__(self) -> None:
        self.code = 200
        self.answer: Any = {"metadata": {"resourceVersion": "77"}}
        self.requests: list[tuple[str, str, str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append((self.command, self.path, self.headers["Content-Type"], body))
                data = json.dumps(outer.answer).encode()
                self.send_response(outer.code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_PATCH = do_POST = _answer  # noqa: N815  (the base class's names)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
                del format, args

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def api(self, folder: Path) -> ApiWriter:
        path = write_kubeconfig(folder / "kubeconfig", f"http://127.0.0.1:{self._server.server_port}")
        return ApiWriter(Api(str(path)), "host-1")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def test_a_status_is_a_patch_of_the_subresource_for_one_uid_and_its_version_comes_back(
    server: Server, tmp_path: Path
) -> None:
    assert server.api(tmp_path).write(STATUS) == WriteAnswer(result=WriteResult.WRITTEN, version=77)
    path = "/apis/balancing.elf.io/v1beta1/localredirectpolicies/dns/status"
    assert server.requests == [("PATCH", path, "application/json-patch+json", status_patch(HELD, "u-1"))]
    test, add = server.requests[0][3]
    assert test == {"op": "test", "path": "/metadata/uid", "value": "u-1"}
    assert (add["op"], add["path"], add["value"]) == ("add", "/status", status_document(HELD))


def test_events_are_created_in_the_namespace_default_each_with_its_own_name(server: Server, tmp_path: Path) -> None:
    api = server.api(tmp_path)
    assert [api.write(EVENT).result for _ in range(2)] == [WriteResult.WRITTEN] * 2
    assert [request[:3] for request in server.requests] == [
        ("POST", "/api/v1/namespaces/default/events", "application/json")
    ] * 2
    names = {body["metadata"]["name"] for *_, body in server.requests}
    assert len(names) == 2 and all(name.startswith("dns.") for name in names)
    assert server.requests[0][3]["reportingInstance"] == "host-1"


@pytest.mark.parametrize("write", [STATUS, EVENT], ids=["status", "event"])
@pytest.mark.parametrize(
    ("code", "result", "gone"),
    [
        (400, WriteResult.REFUSED, False),
        (401, WriteResult.UNAVAILABLE, False),
        (403, WriteResult.UNAVAILABLE, False),
        (404, WriteResult.REFUSED, True),
        (409, WriteResult.REFUSED, True),
        (422, WriteResult.REFUSED, False),
        (429, WriteResult.UNAVAILABLE, False),
        (500, WriteResult.UNAVAILABLE, False),
        (503, WriteResult.UNAVAILABLE, False),
    ],
)
def test_an_error_is_retried_if_it_may_pass_and_says_whether_the_policy_is_gone(
    server: Server, tmp_path: Path, write: StatusWrite | EventWrite, code: int, result: WriteResult, *, gone: bool
) -> None:
    server.code, server.answer = code, {"reason": "Why", "message": "so"}
    if code == 403 and isinstance(write, EventWrite):
        result = WriteResult.REFUSED  # the status must not wait for Events
    if code == 409 and isinstance(write, EventWrite):
        gone = False  # only for a status it means that the policy of that uid is gone
    assert server.api(tmp_path).write(write) == WriteAnswer(result=result, gone=gone, error=f"{code} Why: so")


def test_the_retry_after_of_the_server_is_returned(server: Server, tmp_path: Path) -> None:
    server.code, server.answer = 429, {"details": {"retryAfterSeconds": 9}}
    assert server.api(tmp_path).write(STATUS).retry_after == 9


@pytest.mark.parametrize(
    ("message", "gone"),
    [
        ("the server rejected our request due to an error in our request", True),
        ('LocalRedirectPolicy "dns" is invalid: status.nodesReady: must be of type integer', False),
    ],
)
def test_a_patch_whose_test_of_the_uid_fails_means_that_the_policy_is_gone(
    server: Server, tmp_path: Path, message: str, *, gone: bool
) -> None:
    server.code, server.answer = 422, {"reason": "Invalid", "message": message}
    answer = server.api(tmp_path).write(STATUS)
    assert (answer.result, answer.gone) == (WriteResult.REFUSED, gone)


def test_an_unreachable_server_is_an_answer_too(server: Server, tmp_path: Path) -> None:
    api = server.api(tmp_path)
    server.close()
    answer = api.write(STATUS)
    assert answer.result == WriteResult.UNAVAILABLE
    assert "refused" in answer.error
