"""Reduces raw objects of one collection, and warns of those that can't be fully understood.

Each warning is logged once, until the object changes or goes.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from k8s.api.resource import Reduce
from k8s.objects.identity import Identity, identity_text
from k8s.objects.metadata import ObjectError
from k8s.objects.model import KubeObject, Policy, Service

_log = logging.getLogger(__name__)


class ObjectReader:
    def __init__(self, reduce: Reduce) -> None:
        self._reduce = reduce
        self._warnings: dict[Identity | None, str] = {}
        """Object -> the warning about its present state."""

    def read(self, name: Identity | None, raw: Any) -> KubeObject | None:
        """None for an object that can't be understood, which counts as deleted (P5)."""
        found, warning = None, ""
        try:
            found = self._reduce(raw)
        except ObjectError as error:
            warning = f"{error}; the object counts as deleted until this is corrected"
        if name and isinstance(found, Service) and found.faults:
            warning = f"{identity_text(name)}: {'; '.join(found.faults)}; it has no frontend until this is corrected"
        if name and isinstance(found, Policy) and found.unknown_fields:
            warning = f"{identity_text(name)}: ignored unknown fields {', '.join(found.unknown_fields)}"
        if warning and warning != self._warnings.get(name):
            _log.warning("%s", warning)
        if warning:
            self._warnings[name] = warning
        else:
            self.forget(name)
        return found

    def forget(self, name: Identity | None) -> None:
        """The object is gone: if it comes back, its warning is logged again."""
        self._warnings.pop(name, None)

    def forget_all_but(self, names: Collection[Identity | None]) -> None:
        self._warnings = {name: warning for name, warning in self._warnings.items() if name in names}
