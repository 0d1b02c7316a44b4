"""A scripted API server on a real socket, for answers that a real one gives only when it is in trouble."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.kubeconfig import write_kubeconfig

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: SimpleQueue[Answer]
    asked: SimpleQueue[dict[str, str]]
    released: threading.Event

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.asked.put({"path": url.path, "authorization": self.headers.get("Authorization", ""), **query})
        self.script.get()(self)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        del format, args

    def reply(self, status: int, body: object, headers: Mapping[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def begin(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


def page(*items: dict[str, Any], version: str = "7", more: str = "") -> Answer:
    return lambda handler: handler.reply(
        200, {"metadata": {"resourceVersion": version, "continue": more}, "items": list(items)}
    )


def answer(body: object) -> Answer:
    return lambda handler: handler.reply(200, body)


def refusal(status: int, reason: str = "", headers: Mapping[str, str] | None = None) -> Answer:
    body = {"kind": "Status", "reason": reason, "message": "no"}
    return lambda handler: handler.reply(status, body, headers)


def lines(*events: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def stream(*chunks: bytes) -> Answer:
    """A watch that sends these, and then the server ends it."""

    def answer(handler: Handler) -> None:
        handler.begin()
        for each in chunks:
            handler.chunk(each)
        handler.chunk(b"")

    return answer


def silent_stream(*chunks: bytes) -> Answer:
    """A watch that sends these and then nothing, until the test is over."""

    def answer(handler: Handler) -> None:
        handler.begin()
        for each in chunks:
            handler.chunk(each)
        handler.released.wait(20)

    return answer


def hang(handler: Handler) -> None:
    """Takes the request and never answers."""
    handler.released.wait(20)


class ApiServer:
    def __init__(self, folder: Path, url: str, handler: type[Handler]) -> None:
        self._handler = handler
        self.token_file = folder / "token"
        self.token_file.write_text("first")
        user = {"tokenFile": str(self.token_file)}
        self.kubeconfig = write_kubeconfig(folder / "kubeconfig", url, user=user)

    def will(self, *answers: Answer) -> None:
        """Sets the answers to the next requests, in order."""
        for each in answers:
            self._handler.script.put(each)

    def request(self) -> dict[str, str]:
        """The next request that came: path, authorization and query parameters."""
        return self._handler.asked.get(timeout=10)


@contextmanager
def api_server(folder: Path) -> Iterator[ApiServer]:
    class Scripted(Handler):
        script: SimpleQueue[Answer] = SimpleQueue()
        asked: SimpleQueue[dict[str, str]] = SimpleQueue()
        released = threading.Event()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield ApiServer(folder, f"http://127.0.0.1:{server.server_port}", Scripted)
    finally:
        Scripted.released.set()
        server.shutdown()
        server.server_close()
