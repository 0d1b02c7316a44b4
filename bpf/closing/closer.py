"""The closer's loop: it reads what went out of use, looks for sockets that were redirected there, and closes them.

It has one thread, since entering a network namespace changes the thread that does it. If it hangs, its own alarm kills
it, and the kubelet starts it again. It keeps no state that another closer, beside it or after it, would need.
"""

from __future__ import annotations

import errno
import logging
import signal
import time
from collections import Counter
from pathlib import Path

from bpf.closing.installed import Installed, attached_program, build_of_program
from bpf.closing.schedule import Schedule
from bpf.closing.sock_diag import SockDiag, check_that_sockets_can_be_closed
from bpf.closing.staleness import Candidates, Usage, is_stale
from bpf.maps.closer_faults import describe_fault
from bpf.maps.rows import CloserFault
from bpf.netns import NamespaceGone, entered, find_namespaces, finds_others, is_own_address
from config.domain.addresses import Endpoint, Frontend, Protocol
from config.wording import count

_log = logging.getLogger(__name__)

TICK_SECONDS = 0.2
REPORT_SECONDS = 1.0
"""How often the closer says that it is alive, looks which build is attached, and whether it finds namespaces."""
RETRY_SECONDS = 10.0
"""After a fault."""
ALARM_SECONDS = 60
"""SIGALRM ends the process when a tick takes longer, which none should."""
_STOP = (signal.SIGTERM, signal.SIGINT)


class Closer:
    """`bpffs` is `datapath.bpffs`."""

    def __init__(self, bpffs: Path) -> None:
        self._bpffs = bpffs
        self._program = -1
        """Id of the attached program that was seen last; 0: there is none, -1: nobody has looked yet."""
        self._installed: Installed | None = None
        """Maps and program of its build; None when there is none that we can read."""
        self._schedule = Schedule()
        self._fault = CloserFault.NONE
        self._report_at = 0.0
        self._retry_at = 0.0

    def run(self) -> None:
        """Returns when a signal asks the process to stop."""
        while not wait_for_signal(TICK_SECONDS):
            signal.alarm(ALARM_SECONDS)
            self.tick(time.monotonic())

    def tick(self, now: float) -> None:
        """Does what is due. `now` is time.monotonic()."""
        try:
            if now >= self._report_at:
                self._report_at = now + REPORT_SECONDS
                self._follow_build()
                self._look_for_namespaces()
                self._report()
            if self._installed and now >= self._retry_at:
                self._close_stale(self._installed, now)
        except OSError as error:
            self._retry_at = now + RETRY_SECONDS
            self._schedule.start_over()
            self._set_fault(_fault_of(error), error)
            self._report()

    def _follow_build(self) -> None:
        """Opens the maps of the build that is attached now, if another one was before."""
        program = attached_program(self._bpffs)
        if program == self._program:
            return
        if self._installed:
            self._installed.close()
        self._installed = None
        self._program = program
        self._schedule.start_over()
        build = build_of_program(self._bpffs, program) if program else ""
        if build:
            self._installed = Installed(self._bpffs / build)
            _log.info("closing stale sockets for build %s", build)
        elif program:
            _log.warning("the attached build is of another version, which this closer cannot read: nothing is closed")
        else:
            _log.info("nothing is attached in %s: no sockets are redirected", self._bpffs)

    def _report(self) -> None:
        if self._installed:
            self._installed.report(self._fault)

    def _close_stale(self, installed: Installed, now: float) -> None:
        usage = installed.usage()
        candidates = self._schedule.due(usage, now)
        if candidates is None:
            return
        check_that_sockets_can_be_closed()
        namespaces = find_namespaces()
        closed: Counter[tuple[Frontend, Endpoint]] = Counter()
        # UDP comes first: to list it in all namespaces takes less time than to list TCP in one.
        for protocol in candidates.protocols:
            for namespace in namespaces:
                closed += _close_in(namespace, protocol, candidates, usage, installed)
        for (frontend, backend), number in closed.items():
            _log.info("closed %s to %s, which is out of use for %s", count(number, "socket"), backend, frontend)
        if self._fault != CloserFault.NO_NAMESPACES:
            self._set_fault(CloserFault.NONE)

    def _look_for_namespaces(self) -> None:
        """A backend with an address of its own is in a network namespace of its own, which must be found."""
        if self._installed and self._fault in (CloserFault.NONE, CloserFault.NO_NAMESPACES):
            backends = self._installed.usage().pods
            found = finds_others() or all(map(is_own_address, backends))
            self._set_fault(CloserFault.NONE if found else CloserFault.NO_NAMESPACES)

    def _set_fault(self, fault: CloserFault, error: OSError | None = None) -> None:
        if fault == self._fault:
            return
        self._fault = fault
        if fault == CloserFault.NONE:
            _log.info("stale sockets are closed again")
        elif fault == CloserFault.NO_NAMESPACES:
            _log.warning("stale sockets of Pods stay open: %s", describe_fault(fault))
        else:
            _log.error(
                "stale sockets stay open: %s (%s); retrying every %g s", describe_fault(fault), error, RETRY_SECONDS
            )


def wait_for_signal(seconds: float | None = None) -> bool:
    """Waits that long for a signal that asks the process to stop, or without a limit. Returns whether one came."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    if seconds is None:
        signal.sigwait(_STOP)
        return True
    return signal.sigtimedwait(_STOP, seconds) is not None


def _close_in(
    namespace: Path, protocol: Protocol, candidates: Candidates, usage: Usage, installed: Installed
) -> Counter[tuple[Frontend, Endpoint]]:
    """Closes the stale sockets of one namespace. Returns how many, by frontend and backend."""
    closed: Counter[tuple[Frontend, Endpoint]] = Counter()
    try:
        with entered(namespace), SockDiag() as diag:
            for found in list(diag.connected(protocol)):
                if not candidates.include(protocol, found.peer, usage):
                    continue
                frontend = installed.redirected_from(found)
                if frontend is None:
                    continue
                in_use = installed.is_in_use(frontend, found.peer)
                if is_stale(frontend, found.peer, usage, in_use=in_use) and diag.destroy(found):
                    installed.count_closed(frontend)
                    closed[frontend, found.peer] += 1
    except NamespaceGone:
        _log.debug("network namespace %s is gone", namespace)
    return closed


def _fault_of(error: OSError) -> CloserFault:
    if error.errno == errno.EPERM:
        return CloserFault.NO_RIGHT
    return CloserFault.NOT_SUPPORTED if error.errno in (errno.ENOENT, errno.EOPNOTSUPP) else CloserFault.FAILED
