"""What an operator is told of the sources: whether they hear anything, and why not. Pure.

- outage: the server can't be reached, or is not well. Everything stays as it is, so this is no reason for alarm yet: it
  is in /status and in the metrics at once, and in /readyz and in an error in the log after OUTAGE_SECONDS;
- refused: the server refuses us. The same, after REFUSAL_SECONDS;
- absent: the CRD is not installed. The same, at once;
- silent: nothing was heard for OUTAGE_SECONDS, and nothing says why. It should not happen.
A source that was never listed, or a lease that waits for one, gives its trouble at once as the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from actors.messages.facts import SourceName
from actors.messages.reports import SourceHeard
from k8s.api.trouble import TroubleKind
from k8s.sources.source import NOTHING_TO_HEAR

REFUSAL_SECONDS = 60.0
OUTAGE_SECONDS = 300.0
"""A server that is well is heard about each 150 s, whether anything happens or not (`k8s.api.listwatch`)."""
_SHOWN_AFTER = {
    TroubleKind.REFUSED: REFUSAL_SECONDS,
    TroubleKind.OUTAGE: OUTAGE_SECONDS,
    TroubleKind.ABSENT: 0.0,
}
_WHAT = {
    TroubleKind.REFUSED: "source {} has been refused for {:.0f} s, so that recent changes are missing: {}",
    TroubleKind.OUTAGE: "source {} has heard nothing for {:.0f} s: {}",
    TroubleKind.ABSENT: "source {} has had no objects for {:.0f} s: {}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """One source."""

    state: str
    """`ok`, `starting` (never heard), `silent`, or a trouble's kind."""
    silent_seconds: float | None
    """Since the part that has been silent for longest was heard; None: never."""
    trouble_seconds: float
    message: str


def contact(heard: SourceHeard | None, now: float, *, watched: bool) -> Contact:
    """`now` is time.monotonic(). `watched`: the source is a server, which is heard of even when nothing happens; a
    directory without changes is silent for ever, and well."""
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
    elif watched and silent > OUTAGE_SECONDS:
        state = "silent"
    return Contact(state=state, silent_seconds=silent, trouble_seconds=0.0, message="")


def problem(source: SourceName, found: Contact, *, at_once: bool) -> str:
    """What /readyz and the log say of a source; "" for nothing. `at_once`: something waits for it."""
    if found.state == "silent":
        return f"source {source} has heard nothing for {found.silent_seconds:.0f} s, and the cause is not known"
    kind = next((each for each in TroubleKind if each.value == found.state), None)
    if kind is None:
        return ""
    silent = found.silent_seconds if found.silent_seconds is not None else found.trouble_seconds
    lasts = silent if kind == TroubleKind.OUTAGE else found.trouble_seconds
    if lasts < _SHOWN_AFTER[kind] and not at_once:
        return ""
    return _WHAT[kind].format(source, lasts, found.message)


def contacts_document(contacts: Mapping[SourceName, Contact]) -> list[dict[str, object]]:
    return [
        {
            "name": source.value,
            "state": found.state,
            "silent_seconds": None if found.silent_seconds is None else round(found.silent_seconds, 1),
            "trouble_seconds": round(found.trouble_seconds, 1),
            "message": found.message,
        }
        for source, found in contacts.items()
    ]
