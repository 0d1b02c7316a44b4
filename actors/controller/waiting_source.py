"""Sources of a controller process, which watch nothing before the process leads."""

from __future__ import annotations

import threading
from collections.abc import Callable

from k8s.sources.source import Source, Topic


class WaitingSource:
    """A `k8s.sources.source.Source` whose `run` waits until this process has been elected."""

    def __init__(self, source: Source, when_elected: Callable[[Callable[[], None]], None]) -> None:
        self._source = source
        self._elected_or_stopped = threading.Event()
        self._stopped = False
        when_elected(self._elected_or_stopped.set)

    def run(self) -> None:
        self._elected_or_stopped.wait()
        if not self._stopped:
            self._source.run()

    def stop(self) -> None:
        self._stopped = True
        self._source.stop()
        self._elected_or_stopped.set()

    def relist(self, since: float = 0.0) -> None:
        self._source.relist(since)

    def subscribe(self, topics: frozenset[Topic], revision: int) -> None:
        self._source.subscribe(topics, revision)
