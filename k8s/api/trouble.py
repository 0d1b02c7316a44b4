"""Why the API server, or another source of objects, can't be read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class SourceConfigError(Exception):
    """The source can't be used as configured: the text names the key and what is allowed."""


class TroubleKind(StrEnum):
    """Why a source hears nothing. In none of them is anything changed in the kernel, but for ABSENT."""

    OUTAGE = "outage"
    """The server can't be reached, or answers that it is not well (5xx, 429) or what makes no sense. What it told last
    is most probably still right, so it stays in force until the server is back."""
    REFUSED = "refused"
    """The server is well, and refuses us: our credentials (401) or a right (403). We are blind while others are not,
    and only a person can change that, so it must be seen. What was told last stays in force here, too: one mistake in
    the rights concerns all nodes at once, and to end all redirects of a cluster by it would do more harm, where a
    virtual IP has no other way even break all calls, than the changes that are missed."""
    ABSENT = "absent"
    """The server does not have the kind: its CRD is not installed. Then there are no objects of it."""


@dataclass(frozen=True, slots=True)
class Trouble:
    kind: TroubleKind
    since: float
    """time.monotonic() of the first failure of this kind since the server's last good answer."""
    message: str
    """One sentence: what can't be read, why, and for a missing right its verb and resource."""
