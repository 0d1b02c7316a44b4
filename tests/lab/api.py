"""An API server on the laboratory's node. It lists what the test sets, and its watches stay silent.

A watch whose connection was lost unnoticed is just as silent. Tests with a real API server are in tests/cluster.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.kubeconfig import write_kubeconfig
from tests.lab.lab import Lab, Manifest
from tests.lab.processes import in_netns

_PLURALS = {"Pod": "pods", "Service": "services", "Node": "nodes", "LocalRedirectPolicy": "localredirectpolicies"}


class ApiServer:
    """Changes of its attributes take effect at the next request."""

    def __init__(self) -> None:
        self.objects: dict[str, list[Manifest]] = {}
        """Plural -> the objects of that kind."""
        self.forbidden: set[str] = set()
        """Plurals that nobody may list or watch."""
        self.answering = threading.Event()
        """While it is not set, the server accepts requests and does not answer them."""
        self.answering.set()
        self._over = threading.Event()
        self._watches: set[BaseHTTPRequestHandler] = set()

    def set_objects(self, *objects: Manifest) -> None:
        """Replaces all objects by these."""
        found: dict[str, list[Manifest]] = {}
        for each in objects:
            found.setdefault(_PLURALS[each["kind"]], []).append(each)
        self.objects = found

    def break_watches(self) -> None:
        for each in list(self._watches):
            with contextlib.suppress(OSError):
                each.connection.shutdown(2)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        url = urlsplit(handler.path)
        plural = url.path.rpartition("/")[2]
        while not self.answering.wait(0.1):
            if self._over.is_set():
                return
        if plural in self.forbidden:
            self._reply(handler, 403, {"reason": "Forbidden", "message": f"{plural} is forbidden"})
        elif url.path == "/apis":
            self._reply(handler, 200, {"groups": []})
        elif plural == "balancingpolicies":
            self._reply(handler, 404, {"reason": "NotFound", "message": "no such kind"})
        elif "watch" in parse_qs(url.query):
            handler.send_response(200)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            self._watches.add(handler)
            self._over.wait()
        else:
            self._reply(handler, 200, {"metadata": {"resourceVersion": "7"}, "items": self.objects.get(plural, [])})

    @staticmethod
    def _reply(handler: BaseHTTPRequestHandler, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def end(self) -> None:
        self._over.set()


@contextmanager
def api_server(lab: Lab) -> Iterator[tuple[ApiServer, Path]]:
    """A running server, and a kubeconfig for it."""
    made = ApiServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            made.answer(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
            del format, args

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Tests kill clients, so a broken connection is no error here."""
            del request, client_address

    server = in_netns(lab.node, lambda: Server(("127.0.0.1", 0), Handler))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    path = lab.folder / f"kubeconfig-{server.server_port}"
    kubeconfig = write_kubeconfig(path, f"http://127.0.0.1:{server.server_port}")
    try:
        yield made, kubeconfig
    finally:
        made.end()
        server.shutdown()
        server.server_close()
