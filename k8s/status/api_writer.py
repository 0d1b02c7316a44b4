"""Sends what the controller writes to the API server: the `status` of policies, and Events."""

from __future__ import annotations

import itertools
import time
from http import HTTPStatus

from k8s.api.client import Api
from k8s.api.errors import REFUSALS, ApiError, Unreachable
from k8s.api.resource import policies_path
from k8s.objects.policy_status import version_of
from k8s.status.write_bodies import EVENT_NAMESPACE, event_document, status_patch
from k8s.status.write_requests import EventWrite, StatusWrite, Write, WriteAnswer, WriteResult

_JSON_PATCH = "application/json-patch+json"
_TEST_FAILED = "rejected our request"
"""Part of the API server's message when the `test` of a JSON patch fails."""
_CONCERN_ALL_WRITES = (*REFUSALS, HTTPStatus.TOO_MANY_REQUESTS)
"""Refusals that are about us, not about what is written."""


class ApiWriter:
    """Blocking; for one thread."""

    def __init__(self, api: Api, instance: str) -> None:
        """`instance` is this process, as Events name it in `reportingInstance`."""
        self._api = api
        self._instance = instance
        # The numbers start at the current time, so that the names of Events differ from those of other processes and of
        # earlier runs.
        self._numbers = itertools.count(time.time_ns())

    def write(self, write: Write) -> WriteAnswer:
        """Never raises for what the API server does."""
        try:
            if isinstance(write, StatusWrite):
                path = f"{policies_path(write.key.kind)}/{write.key.name}/status"
                answer = self._api.send("PATCH", path, status_patch(write.status, write.uid), _JSON_PATCH)
                return WriteAnswer(result=WriteResult.WRITTEN, version=version_of(answer))
            document = event_document(write, suffix=f"{next(self._numbers):x}", instance=self._instance)
            self._api.send("POST", f"/api/v1/namespaces/{EVENT_NAMESPACE}/events", document)
            return WriteAnswer(result=WriteResult.WRITTEN)
        except Unreachable as error:
            return WriteAnswer(result=WriteResult.UNAVAILABLE, error=str(error))
        except ApiError as error:
            unavailable = error.status in _CONCERN_ALL_WRITES or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
            if isinstance(write, EventWrite) and error.status == HTTPStatus.FORBIDDEN:
                # Perhaps only the namespace's quota of Events is used up. Then statuses can still be written, so this
                # Event is given up.
                unavailable = False
            return WriteAnswer(
                result=WriteResult.UNAVAILABLE if unavailable else WriteResult.REFUSED,
                gone=error.status == HTTPStatus.NOT_FOUND
                or (isinstance(write, StatusWrite) and _has_another_uid(error)),
                error=str(error),
                retry_after=error.retry_after,
            )


def _has_another_uid(error: ApiError) -> bool:
    """Whether a status was refused because the policy of that name has another uid.

    Then the `test` of the patch failed (422; for a status that breaks a rule of the CRD, the API server names the rule
    instead), or the policy was replaced at that very moment (409).
    """
    failed = error.status == HTTPStatus.UNPROCESSABLE_ENTITY and _TEST_FAILED in error.message
    return failed or error.status == HTTPStatus.CONFLICT
