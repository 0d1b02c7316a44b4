"""How a request to the API server, or the attempt to find that server, can fail."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from http import HTTPStatus

REFUSALS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
"""HTTP codes with which a server that works refuses our credentials, or a request for which we have no right."""
MAX_RETRY_AFTER_SECONDS = 300.0
"""A longer `Retry-After` is cut to this, so that a misconfigured proxy can't keep an agent from seeing
changes for a day."""
_MAX_MESSAGE = 500


class SourceConfigError(Exception):
    """The source can't be used as it is configured. The text names the key and what is allowed."""


class Unreachable(Exception):
    """The API server could not be reached, or its answer is not JSON."""


class Silence(Exception):
    """A watch delivered nothing for the agreed time. Either nothing happened, or the server is dead."""


class ApiError(Exception):
    """The API server refused. `status` is the HTTP code, `reason` Kubernetes' word (`Expired`, `Forbidden`, ...)."""

    def __init__(
        self, status: int, reason: str, message: str, *, retry_after: float = 0.0, causes: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        """Seconds that the server asks us to wait before the next request; 0 when it does not ask."""
        self.causes = causes
        """Kubernetes' words for the details, such as `ResourceVersionTooLarge`."""


def api_error(status: int, answer: object, *, retry_after: str | None = None) -> ApiError:
    """From a `Status` object, or from whatever came in its place. `retry_after` is the header of that name."""
    found = answer if isinstance(answer, dict) else {}
    details = found.get("details")
    details = details if isinstance(details, dict) else {}
    causes = details.get("causes")
    asked = max(_seconds(retry_after), _seconds(details.get("retryAfterSeconds")))
    return ApiError(
        status,
        str(found.get("reason") or "Unknown"),
        " ".join(str(found.get("message") or "no message").split())[:_MAX_MESSAGE],
        retry_after=min(asked, MAX_RETRY_AFTER_SECONDS),
        causes=frozenset(
            str(each.get("reason")) for each in (causes if isinstance(causes, list) else ()) if isinstance(each, dict)
        ),
    )


def _seconds(value: object) -> float:
    """A `Retry-After`: a number of seconds or a date (RFC 9110). 0 if it is absent, or is neither of them."""
    text = str(value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
