"""`run.py detach --stay`: stands in for the agent on a node that has been detached."""

from __future__ import annotations

import threading
from http import HTTPStatus

from actors.framework.http import HttpServer
from actors.framework.http_exchange import Answer
from actors.framework.stop_signals import StopSignals
from config.settings import HealthSettings


def stand_in(health: HealthSettings) -> None:
    """Answers the agent's health checks until a stop signal arrives, so that k8s/detach.yaml has to change only the
    container's command."""

    def detached() -> Answer:
        return Answer(HTTPStatus.OK, "text/plain", b"detached\n")

    routes = {"/healthz": detached, "/readyz": detached}
    server = HttpServer(section="health", address=health.address, port=health.port, routes=routes)
    signals = StopSignals()
    serving = threading.Thread(target=server.run, name="health")
    serving.start()
    signals.wait()
    server.stop()
    serving.join()
