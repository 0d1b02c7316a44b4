"""The contact of each source with its server: whether it hears anything, and why not. Pure.

- outage: the server cannot be reached or does not work. /status and the metrics show it at once. All redirects stay as
  they are meanwhile, so /readyz and an error in the log show it only after OUTAGE_SECONDS.
- refused: the server refuses us. It is shown in the same way, but after REFUSAL_SECONDS.
- absent: the CRD is not installed. It is shown everywhere at once.
- silent: nothing was heard for OUTAGE_SECONDS, and no cause is known. This should not happen.

When a source was never listed, or when the lease waits for it to be read again, its trouble is shown everywhere at
once.
"""

from __future__ import annotations

from dataclasses import dataclass

from actors.messages.facts import SourceName
from actors.messages.reports import SourceHeard
from k8s.api.trouble import TroubleKind
from k8s.sources.source import NOTHING_TO_HEAR

REFUSAL_SECONDS = 60.0
OUTAGE_SECONDS = 300.0
"""A working server is heard from at least each 150 s, even when nothing changes (`k8s.api.server_judgement`)."""
_SHOWN_AFTER = {
    TroubleKind.REFUSED: REFUSAL_SECONDS,
    TroubleKind.OUTAGE: OUTAGE_SECONDS,
    TroubleKind.ABSENT: 0.0,
}
_PROBLEMS = {
    TroubleKind.REFUSED: "source {} has been refused for {:.0f} s, so that recent changes are missing: {}",
    TroubleKind.OUTAGE: "source {} has heard nothing for {:.0f} s: {}",
    TroubleKind.ABSENT: "source {} has had no objects for {:.0f} s: {}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """The contact of one source."""

    state: str
    """`ok`, `starting` (nothing was heard yet), `silent`, or a TroubleKind."""
    silent_seconds: float | None
    """Since something was heard from the part of the source that has been silent for longest; None: never."""
    trouble_seconds: float
    message: str


def contact_of(heard: SourceHeard | None, now: float, *, has_server: bool) -> Contact:
    """`now` is time.monotonic(). A server is heard from even when nothing changes; a directory (`has_server` False) is
    silent until a file changes, which is in order."""
    silent = None if heard is None or heard.heard_at is None else max(0.0, now - heard.heard_at)
    if heard is not None and heard.heard_at == NOTHING_TO_HEAR:
        silent = 0.0
    if heard is not None and heard.trouble is not None:
        trouble = heard.trouble
        seconds = max(0.0, now - trouble.since)
        return Contact(
            state=trouble.kind.value, silent_seconds=silent, trouble_seconds=seconds, message=trouble.message
        )
    state = "ok"
    if silent is None:
        state = "starting"
    elif has_server and silent > OUTAGE_SECONDS:
        state = "silent"
    return Contact(state=state, silent_seconds=silent, trouble_seconds=0.0, message="")


def problem_of(source: SourceName, contact: Contact, *, at_once: bool) -> str:
    """Returns the sentence that /readyz and the log show about a source, or "".

    `at_once` leaves out the delay of each kind of trouble, because something is waiting for the source.
    """
    if contact.state == "silent":
        return f"source {source} has heard nothing for {contact.silent_seconds:.0f} s, and the cause is not known"
    kind = next((each for each in TroubleKind if each.value == contact.state), None)
    if kind is None:
        return ""
    silent = contact.silent_seconds if contact.silent_seconds is not None else contact.trouble_seconds
    seconds = silent if kind == TroubleKind.OUTAGE else contact.trouble_seconds
    if seconds < _SHOWN_AFTER[kind] and not at_once:
        return ""
    return _PROBLEMS[kind].format(source, seconds, contact.message)
