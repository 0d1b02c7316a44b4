"""When the closer looks for stale sockets, and for which. Pure: the time is given."""

from __future__ import annotations

from bpf.closing.judgement import Suspicion, Usage, suspicion_after, suspicion_of_all

REPEATS = (0.1, 1.0)
"""Seconds after a backend went out of use at which its sockets are looked for. Not at once: a Pod that ends in good
order still answers, and a lookup that is under way would lose its socket just before its answer. And twice: a program
that called `connect` just before the first look may get its socket connected just after it."""
FULL_SECONDS = 300.0
"""Every so often all sockets are looked at, for what a look may have missed: a namespace that was not found yet, or a
socket that the kernel left out of a list that changed meanwhile."""


class Schedule:
    def __init__(self) -> None:
        self._usage: Usage | None = None
        self._due: list[tuple[float, Suspicion]] = []
        self._full_at = 0.0

    def start_over(self) -> None:
        """What the agent wrote until now no longer counts: the next look is at all sockets."""
        self._usage = None

    def due(self, usage: Usage, now: float) -> Suspicion | None:
        """The sockets to look for at this moment, given what the agent says now; None when there is nothing to do."""
        if self._usage is None or now >= self._full_at:
            self._due = [(now + delay, suspicion_of_all(usage)) for delay in REPEATS]
            self._full_at = now + FULL_SECONDS
        elif usage != self._usage:
            self._due += [(now + delay, suspicion_after(self._usage, usage)) for delay in REPEATS]
        self._usage = usage
        suspicion = Suspicion()
        for _, each in filter(lambda entry: entry[0] <= now, self._due):
            suspicion |= each
        self._due = [entry for entry in self._due if entry[0] > now]
        return None if suspicion == Suspicion() else suspicion
