"""Since when one collection can't be read, and why. Each change of this is logged once."""

from __future__ import annotations

import logging
import time
from http import HTTPStatus

from k8s.api.errors import ApiError
from k8s.api.resource import Resource
from k8s.api.trouble import Trouble, TroubleKind

_log = logging.getLogger(__name__)


class TroubleLog:
    def __init__(self, resource: Resource) -> None:
        self._resource = resource
        self._since: dict[TroubleKind, float] = {}
        """time.monotonic() at which each kind of trouble began; empty when all is well."""
        self._cause = ""
        """The cause that was logged last; "" when all is well."""

    def add(self, kind: TroubleKind, cause: str, why: str, consequence: str) -> Trouble:
        """Call it for every failure. Failures with the same `cause` are logged once, since a single outage breaks
        connections in many ways."""
        level = logging.DEBUG if cause == self._cause else logging.WARNING
        self._cause = cause
        text = why if str(self._resource) in why else f"{self._resource}: {why}"
        _log.log(level, "%s; %s; retrying with back-off", text, consequence)
        return Trouble(kind, self._since.setdefault(kind, time.monotonic()), text)

    def end(self) -> None:
        """Call it for every good answer."""
        self._since.clear()
        if self._cause:
            self._cause = ""
            _log.info("%s: the API server answers again", self._resource)


def advice(error: ApiError, resource: Resource, verb: str) -> str:
    """Why a request was refused, and what to do about it."""
    if error.status == HTTPStatus.FORBIDDEN:
        missing = f"the right to {verb} {resource.name} is missing"
        return f"{missing} ({error}); the service account needs get, list and watch for {resource.name}"
    if error.status == HTTPStatus.UNAUTHORIZED:
        return f"the API server does not accept our credentials, so we cannot {verb} {resource.name} ({error})"
    if error.status == HTTPStatus.NOT_FOUND:
        return f"the API server has no {resource.name} ({error}); is the CRD installed? (kubectl apply -f k8s/crd.yaml)"
    return f"{error} ({resource.kind})"
