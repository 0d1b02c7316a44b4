"""Writes what the controller has to say to the API server: `status` of policies, and Events."""

from __future__ import annotations

import itertools
import time

from k8s.api.client import Api, ApiError, Unreachable
from k8s.api.resource import policies_path
from k8s.objects.policy_status import version_of
from k8s.status.writes import (
    EVENT_NAMESPACE,
    EventWrite,
    StatusWrite,
    Write,
    WriteAnswer,
    WriteResult,
    event_document,
    status_patch,
)

_JSON_PATCH = "application/json-patch+json"
_NOT_APPLIED = "rejected our request"
"""What the API server says of a JSON patch whose test fails."""
_EVERYTHING = (401, 403, 429)
"""Refusals that speak of us, not of what is written."""
_EVENT_GIVEN_UP = 403
"""Events are of use, no more; the namespace's quota may be used up."""


class StatusApi:
    """Blocking; for one thread."""

    def __init__(self, api: Api, instance: str) -> None:
        """`instance` is what Events name as the process that reports."""
        self._api = api
        self._instance = instance
        # Unique among ours, and among those of other processes and of a former life.
        self._numbers = itertools.count(time.time_ns())

    def write(self, write: Write) -> WriteAnswer:
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
            everything = error.status in _EVERYTHING or error.status >= 500
            if isinstance(write, EventWrite) and error.status == _EVENT_GIVEN_UP:
                everything = False
            return WriteAnswer(
                result=WriteResult.UNAVAILABLE if everything else WriteResult.REFUSED,
                gone=error.status == 404 or (isinstance(write, StatusWrite) and _is_of_another(error)),
                error=str(error),
                retry_after=error.retry_after,
            )


def _is_of_another(error: ApiError) -> bool:
    """Whether a status was refused since the policy is not the one of that uid: the patch could not be applied (a
    status that breaks a rule is named instead), or the policy was replaced at that very moment."""
    return error.status == 409 or (error.status == 422 and _NOT_APPLIED in error.message)
