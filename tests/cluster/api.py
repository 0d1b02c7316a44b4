"""The API server in raw JSON over one kept connection, for requests that tests make too often to run kubectl."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from http import HTTPStatus
from http.client import HTTPSConnection, RemoteDisconnected
from pathlib import Path
from ssl import create_default_context
from typing import Any

Json = dict[str, Any]
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"  # JSON is YAML


class ApiRefused(Exception):
    """The API server answered with a status that is not 2xx: `code` is the status, `body` the answer."""

    def __init__(self, method: str, path: str, code: int, body: str) -> None:
        super().__init__(f"{method} {path}: {code} {body[:2000]}")
        self.code, self.body = code, body


class Api:
    """For one thread at a time. Sockets that are opened within `inside()` belong to the server's network namespace."""

    def __init__(
        self, port: int, token: str, certificate: Path, inside: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._port, self._token, self._certificate, self._inside = port, token, certificate, inside
        self._connection: HTTPSConnection | None = None

    def get(self, path: str) -> Json:
        return self.call("GET", path)

    def create(self, path: str, body: Json) -> Json:
        return self.call("POST", path, body)

    def patch(self, path: str, body: Json, kind: str = MERGE) -> Json:
        return self.call("PATCH", path, body, kind)

    def delete(self, path: str, *, grace_seconds: int | None = None) -> Json:
        options: Json = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        return self.call("DELETE", path, options)

    def call(self, method: str, path: str, body: Json | None = None, kind: str = "application/json") -> Json:
        """Raises ApiRefused; OSError or http.client.HTTPException when nobody answers within 30 s."""
        code, text = self.raw(method, path, body, kind)
        if code >= HTTPStatus.MULTIPLE_CHOICES:
            raise ApiRefused(method, path, code, text)
        answer: Json = json.loads(text)
        return answer

    def raw(self, method: str, path: str, body: Json | None = None, kind: str = "application/json") -> tuple[int, str]:
        """HTTP status and body."""
        kept = self._connection is not None
        try:
            return self._ask(method, path, body, kind)
        except (OSError, RemoteDisconnected):
            if not kept:
                raise
        # The server closes an idle connection, and we notice only when we use it.
        return self._ask(method, path, body, kind)

    def _ask(self, method: str, path: str, body: Json | None, kind: str) -> tuple[int, str]:
        if not self._connection:
            context = create_default_context(cafile=str(self._certificate))
            connection = HTTPSConnection("127.0.0.1", self._port, timeout=30, context=context)
            with self._inside():
                connection.connect()
            # Otherwise it would reconnect on its own, in our network namespace.
            connection.auto_open = 0
            self._connection = connection
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json", "Content-Type": kind}
        try:
            self._connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = self._connection.getresponse()
            text = answer.read().decode()
        except BaseException:
            self.close()
            raise
        if answer.will_close:
            self.close()
        return answer.status, text

    def close(self) -> None:
        """The next call opens a new connection, as is necessary once the server was restarted."""
        if self._connection:
            self._connection.close()
            self._connection = None
