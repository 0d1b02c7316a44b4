"""The gate to the kernel: nothing goes out before every source has ended a listing. Pure."""

from __future__ import annotations

from actors.messages.facts import SourceName


class SyncGate:
    def __init__(self) -> None:
        self._listed_at: dict[SourceName, float] = {}
        """Source -> time.monotonic() at which its newest listing was read."""
        self._synced: set[SourceName] = set()
        """Sources that have ended a listing of what the policies need."""

    def listed(self, source: SourceName, as_of: float, *, covers_policies: bool) -> None:
        """A listing has ended. `covers_policies`: it covers what the known policies need from this source."""
        self._listed_at[source] = as_of
        if covers_policies:
            self._synced.add(source)

    def is_synced(self, source: SourceName) -> bool:
        return source in self._synced

    @property
    def is_open(self) -> bool:
        """Once open, the gate stays open: a source that lists again has reported everything before."""
        return len(self._synced) == len(SourceName)

    @property
    def as_of(self) -> float:
        """When the oldest of the sources' newest listings was read; 0 while a source has ended none."""
        return min(self._listed_at.get(source, 0.0) for source in SourceName)
