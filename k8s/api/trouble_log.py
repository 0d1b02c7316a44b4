"""Since when one collection can't be read, and why. Each change of this is logged once."""

from __future__ import annotations

import logging
import time

from k8s.api.resource import Resource
from k8s.api.server_judgement import TroubleReport
from k8s.api.trouble import Trouble, TroubleKind

_log = logging.getLogger(__name__)


class TroubleLog:
    def __init__(self, resource: Resource) -> None:
        self._resource = resource
        self._since: dict[TroubleKind, float] = {}
        """time.monotonic() at which each kind of trouble began; empty when all is well."""
        self._cause = ""
        """The cause that was logged last; "" when all is well."""

    def add(self, report: TroubleReport) -> Trouble:
        """Call it for every failure. Failures with the same cause are logged once, since a single outage breaks
        connections in many ways."""
        level = logging.DEBUG if report.cause == self._cause else logging.WARNING
        self._cause = report.cause
        text = report.why if str(self._resource) in report.why else f"{self._resource}: {report.why}"
        _log.log(level, "%s; %s; retrying with back-off", text, report.consequence)
        return Trouble(report.kind, self._since.setdefault(report.kind, time.monotonic()), text)

    def end(self) -> None:
        """Call it for every good answer."""
        self._since.clear()
        if self._cause:
            self._cause = ""
            _log.info("%s: the API server answers again", self._resource)
