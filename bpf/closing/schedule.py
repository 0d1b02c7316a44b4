"""When the closer looks for stale sockets, and for which. Pure; the clock is passed in."""

from __future__ import annotations

from bpf.closing.staleness import Candidates, Usage, all_candidates, new_candidates

REPEATS = (0.1, 1.0)
"""How many seconds after a backend went out of use its sockets are looked for. The first look waits, since a Pod that
ends in good order still answers: a DNS query that is under way would lose its socket just before the answer. The second
look finds sockets of programs that called `connect` just before the first one, and were connected just after it."""
FULL_SECONDS = 300.0
"""All sockets are looked at this often, since a look may miss some: in a namespace that was not found yet, or left out
by the kernel because its list changed meanwhile."""


class Schedule:
    def __init__(self) -> None:
        self._usage: Usage | None = None
        self._due: list[tuple[float, Candidates]] = []
        """When to look -> for what."""
        self._full_at = 0.0

    def start_over(self) -> None:
        """Forgets what the agent wrote until now, so the next look is at all sockets."""
        self._usage = None

    def due(self, usage: Usage, now: float) -> Candidates | None:
        """What to look for now; None when there is nothing to do. `usage` is what the agent says now, `now` is
        time.monotonic()."""
        if self._usage is None or now >= self._full_at:
            self._due = [(now + delay, all_candidates(usage)) for delay in REPEATS]
            self._full_at = now + FULL_SECONDS
        elif usage != self._usage:
            self._due += [(now + delay, new_candidates(self._usage, usage)) for delay in REPEATS]
        self._usage = usage
        candidates = Candidates()
        for _, each in filter(lambda entry: entry[0] <= now, self._due):
            candidates |= each
        self._due = [entry for entry in self._due if entry[0] > now]
        return None if candidates == Candidates() else candidates
