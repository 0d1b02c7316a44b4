"""The main thread of a process of actors: it starts Supervisor, then waits for a stop signal or a fatal failure."""

from __future__ import annotations

import logging
import resource
import signal
from collections.abc import Sequence

import pykka
import pykka.debug

from actors.framework.stop_signals import StopSignals
from actors.framework.supervisor import ChildSpec, Supervisor

_log = logging.getLogger(__name__)

_STOP_SECONDS = 4.0


class ActorProcess:
    """Create it in the main thread, once in the life of a process."""

    def __init__(self, consequence: str) -> None:
        """`consequence` is logged with a fatal failure: what the failure means for the node."""
        _raise_descriptor_limit()
        self._consequence = consequence
        self._signals = StopSignals()
        self._fatal: list[str] = []
        signal.signal(signal.SIGUSR1, pykka.debug.log_thread_tracebacks)

    def end(self, reason: str) -> None:
        """May be called in any thread: ends the process as failed."""
        self._fatal.append(reason)
        self._signals.end()

    def run(self, specs: Sequence[ChildSpec], reporters: Sequence[str]) -> bool:
        """Runs the actors until the process ends; `reporters` hear each second how they are. Returns False when the
        process failed."""
        supervisor = Supervisor.start(specs=specs, reporters=reporters, on_fatal=self.end)
        self._signals.wait()
        fatal = self._fatal[:1]  # stopping Supervisor below adds a reason of its own
        for reason in fatal:
            _log.critical("%s; %s", reason, self._consequence)
        try:
            supervisor.stop(timeout=_STOP_SECONDS)
        except (pykka.Timeout, pykka.ActorDeadError):
            _log.warning("some actors did not stop within %g s", _STOP_SECONDS)
        return not fatal


def _raise_descriptor_limit() -> None:
    """Sets the soft limit to the hard one. It is low by default for programs that use select(2), which we do not."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
