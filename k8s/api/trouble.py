"""Why the API server, or another source of objects, can't be read. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class TroubleKind(StrEnum):
    """Why a source hears nothing. Only ABSENT changes anything in the kernel."""

    OUTAGE = "outage"
    """The server can't be reached, says that it has a problem (5xx, 429), or gives an answer that makes no sense.

    The last known state is most probably still right, so it stays in force until the server is back."""
    REFUSED = "refused"
    """The server works, and refuses our credentials (401) or a request for which we lack the right (403). We see
    nothing while other clients do, and only a person can change that, so it must be reported.

    The last known state stays in force here, too. One mistake in the rights affects all nodes at once. If it ended all
    redirects of the cluster, and broke all calls to virtual IPs that lead nowhere else, it would do more harm than the
    changes that we miss meanwhile."""
    ABSENT = "absent"
    """The server does not have the kind, since its CRD is not installed. So there are no objects of this kind."""


@dataclass(frozen=True, slots=True)
class Trouble:
    kind: TroubleKind
    since: float
    """time.monotonic() of the first failure of this kind since the server's last good answer."""
    message: str
    """One sentence: what can't be read, why, and for a missing right its verb and resource."""
