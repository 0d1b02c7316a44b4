"""Results -> Markdown: a row for each fault, a column for each way."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.bench.losses.bed import Measured, Requests
from tests.bench.losses.faults import Fault
from tests.bench.losses.ways import Way

Results = Mapping[tuple[Fault, type[Way]], Measured]


def tables(results: Results) -> str:
    """One table for each kind of load."""
    return "\n\n".join(
        f"{text}\n\n{_table(results, cell)}"
        for text, cell in (
            ("Lookups, each on a socket of its own: how many had no answer; the longest time without one.", _lookups),
            (
                "Sockets that are kept, and send during the fault: the same, but an error ends the time as well.",
                _busy,
            ),
            ("Sockets that are kept, and send only when the fault is over: the same.", _quiet),
            ("Requests to nginx; to HAProxy: how many failed.", _busy_proxies),
            ("The same, to proxies that get requests only when the fault is over.", _quiet_proxies),
        )
    )


def _table(results: Results, cell: Callable[[Measured], str]) -> str:
    faults = list(dict.fromkeys(fault for fault, _ in results))
    ways = list(dict.fromkeys(way for _, way in results))
    lines = [["the server is", *(way.heading for way in ways)], ["---"] * (1 + len(ways))]
    for fault in faults:
        cells = (cell(results[fault, way]) if (fault, way) in results else "-" for way in ways)
        lines.append([fault.heading, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _lookups(measured: Measured) -> str:
    lookups = measured.lookups.lookups
    return f"{lookups.unanswered:,} of {lookups.sent:,}; {lookups.longest_silence_ms:.0f} ms"


def _busy(measured: Measured) -> str:
    kept = measured.lookups.kept
    return f"{kept.unanswered:,} of {kept.sent:,}; {kept.longest_unnoticed_ms:.0f} ms"


def _quiet(measured: Measured) -> str:
    quiet = measured.lookups.quiet
    return f"{quiet.unanswered:,} of {quiet.sent:,}; {quiet.longest_unnoticed_ms:.0f} ms"


def _busy_proxies(measured: Measured) -> str:
    return f"{_failed(measured.nginx)}; {_failed(measured.haproxy)}"


def _quiet_proxies(measured: Measured) -> str:
    return f"{_failed(measured.quiet_nginx)}; {_failed(measured.quiet_haproxy)}"


def _failed(requests: Requests) -> str:
    return f"{requests.failed:,} of {requests.sent:,}"
