"""The `/status` of this machine's agent or controller, as the commands read it."""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPException
from ipaddress import ip_address
from typing import Any, TypeAlias

from config.domain.addresses import Endpoint
from config.settings import HealthSettings

Status: TypeAlias = dict[str, Any]
_TIMEOUT_SECONDS = 10.0
_LOOPBACK = {4: "127.0.0.1", 6: "::1"}


class NoAnswer(Exception):
    """No agent or controller answers. The text names the address and the reason."""


def fetch_status(health: HealthSettings) -> Status:
    """Raises NoAnswer."""
    address = ip_address(health.address)
    host = _LOOPBACK[address.version] if address.is_unspecified else str(address)
    where = Endpoint(ip_address(host), health.port)
    connection = HTTPConnection(host, health.port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/status")
        answer = connection.getresponse()
        document = json.loads(answer.read())
    except (OSError, HTTPException, ValueError) as error:
        msg = f"no agent answers at {where} (health.address and health.port): {error}"
        raise NoAnswer(msg) from error
    finally:
        connection.close()
    if answer.status != 200 or not isinstance(document, dict) or "policies" not in document:
        msg = f"what answers at {where} (health.address and health.port) is not an agent: status {answer.status}"
        raise NoAnswer(msg)
    return document
