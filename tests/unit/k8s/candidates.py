"""Candidates of an election over Leases in memory, with a clock of the test's own. tests/cluster has a real one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from k8s.api.errors import ApiError, Unreachable
from k8s.election import election, installations
from k8s.election.election import LEASE_DURATION_SECONDS, Election
from k8s.election.installations import Installations

LEASES = "/apis/coordination.k8s.io/v1/leases"


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


class LeaseServer:
    """The Leases of a cluster, as an API server keeps them: by path."""

    def __init__(self) -> None:
        self.leases: dict[str, dict[str, Any]] = {}
        self.version = 0
        self.away: dict[str, ApiError | Unreachable] = {}
        """Candidate -> how the server fails for it."""
        self.may_list = True
        """Whether the Leases of all namespaces may be listed."""
        self.before_answer: Callable[[], None] = lambda: None


class Client:
    """What a candidate uses of `k8s.api.client.Api`."""

    def __init__(self, server: LeaseServer, candidate: str) -> None:
        self._server = server
        self._candidate = candidate

    def get(self, path: str, _parameters: object, *, timeouts: object) -> dict[str, Any]:
        del timeouts
        if path == LEASES:
            if not self._server.may_list:
                raise ApiError(403, "Forbidden", "leases.coordination.k8s.io is forbidden")
            return {"items": copy.deepcopy(list(self._server.leases.values()))}
        self._answer()
        if path not in self._server.leases:
            raise ApiError(404, "NotFound", "there is none")
        return copy.deepcopy(self._server.leases[path])

    def send(self, method: str, path: str, body: dict[str, Any], *, timeouts: object) -> dict[str, Any]:
        del timeouts
        self._answer()
        if method == "POST":
            path = f"{path}/{body['metadata']['name']}"
        present = self._server.leases.get(path)
        expected = present["metadata"]["resourceVersion"] if present else None
        if body["metadata"].get("resourceVersion") != expected:
            raise ApiError(409, "Conflict", "the object has been modified")
        self._server.version += 1
        kept = copy.deepcopy(body)
        kept["metadata"]["resourceVersion"] = str(self._server.version)
        self._server.leases[path] = kept
        return copy.deepcopy(kept)

    def _answer(self) -> None:
        self._server.before_answer()
        if self._candidate in self._server.away:
            raise self._server.away[self._candidate]


class Candidates:
    """The processes of one installation, by name."""

    def __init__(self, clock: Clock, server: LeaseServer, namespace: str = "elf") -> None:
        self.clock = clock
        self.server = server
        self.namespace = namespace
        self.lost: dict[str, list[str]] = {}
        self.all: dict[str, Election] = {}
        self.elected: list[str] = []

    @property
    def path(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/balancing-controller"

    @property
    def spec(self) -> dict[str, Any]:
        """The `spec` of the Lease."""
        spec: dict[str, Any] = self.server.leases[self.path]["spec"]
        return spec

    def __getitem__(self, name: str) -> Election:
        if name not in self.all:
            self.lost[name] = []
            client: Any = Client(self.server, name)
            made = Election(
                api=client,
                namespace=self.namespace,
                identity=name,
                on_lost=self.lost[name].append,
                installations=Installations(client, self.namespace, LEASE_DURATION_SECONDS),
            )
            made.when_elected(lambda: self.elected.append(name))
            self.all[name] = made
        return self.all[name]

    def leading(self) -> list[str]:
        return [name for name, each in self.all.items() if each.leads()]

    def run(self, seconds: int, *names: str) -> None:
        """Lets so many seconds pass, in which each of these candidates tries every two seconds."""
        for _ in range(seconds // 2):
            self.clock.now += 2
            for name in names:
                self[name].try_once()
            assert len(self.leading()) <= 1


def replace_clocks(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(election, "time", clock)
    monkeypatch.setattr(installations, "time", clock)
    return clock
