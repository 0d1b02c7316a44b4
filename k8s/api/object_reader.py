"""Reduces raw objects of one collection, and warns of those that can't be fully understood.

Each warning is logged once, until the object changes or goes.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from k8s.api.resource import Reduce
from k8s.objects.identity import Identity
from k8s.objects.metadata import ObjectError
from k8s.objects.model import KubeObject
from k8s.objects.object_warnings import warning_of_deletion, warnings_about

_log = logging.getLogger(__name__)


class ObjectReader:
    def __init__(self, reduce: Reduce) -> None:
        self._reduce = reduce
        self._warnings: dict[Identity | None, tuple[str, ...]] = {}
        """Object -> the warnings about its present state."""

    def read(self, object_id: Identity | None, raw: Any) -> KubeObject | None:
        """None for an object that can't be understood, which counts as deleted (P5)."""
        found: KubeObject | None = None
        try:
            found = self._reduce(raw)
            warnings = warnings_about(found) if object_id else ()
        except ObjectError as error:
            warnings = (warning_of_deletion(error),)
        known = self._warnings.pop(object_id, ())
        for warning in warnings:
            if warning not in known:
                _log.warning("%s", warning)
        if warnings:
            self._warnings[object_id] = warnings
        return found

    def forget(self, object_id: Identity | None) -> None:
        """The object is gone: if it comes back, its warning is logged again."""
        self._warnings.pop(object_id, None)

    def forget_all_but(self, object_ids: Collection[Identity | None]) -> None:
        self._warnings = {each: warnings for each, warnings in self._warnings.items() if each in object_ids}
