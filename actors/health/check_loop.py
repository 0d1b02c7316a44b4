"""The loop that runs all health checks: owns their sockets, and the times at which they begin.

One thread serves all Pods and never waits for one of them. Checks of one Pod begin `interval` apart, and those of
different Pods are spread over the interval.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

from actors.framework.messages import Message
from actors.health.check_times import first_time, next_time
from actors.health.exchanges import CheckFailed, CheckRequest, Exchange
from actors.health.schedule import Schedule
from actors.health.targets import Target, Targets
from actors.messages.checks import CheckCount, ChecksSelected, HealthChecksCounted
from config.domain.ids import PolicyKey

COUNT_SECONDS = 1.0
"""Between two HealthChecksCounted at least, unless the checks of a Pod end for good."""


@dataclass(slots=True, eq=False)
class _Check:
    """A target, and its present or next check."""

    target: Target
    request: CheckRequest
    due_at: float
    """time.monotonic() at which the check begins, or should have begun."""
    exchange: Exchange | None = None
    """None between two checks. It stays open after the result, until the rest of the answer has arrived."""
    has_result: bool = False


class CheckLoop:
    def __init__(self, on_message: Callable[[Message], object]) -> None:
        """`on_message` is called in the thread of `run`, with HealthChanged and HealthChecksCounted."""
        self._on_message = on_message
        self._inbox: SimpleQueue[ChecksSelected] = SimpleQueue()
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._epoll = select.epoll()
        self._epoll.register(self._woken, select.EPOLLIN)
        self._targets = Targets()
        self._checks: dict[Target, _Check] = {}
        self._running: dict[int, _Check] = {}
        """Descriptor -> the check whose exchange has it."""
        self._schedule = Schedule[_Check]()
        self._targets_begun = 0
        """How many targets there have been; it spreads their first checks."""
        self._counts: Counter[tuple[PolicyKey, bool]] = Counter()
        """Policy, and whether the checks succeeded -> how many of these ended since the last message."""
        self._counted_at = float("-inf")

    def select(self, message: ChecksSelected) -> None:
        """May be called in any thread."""
        self._inbox.put(message)
        try:
            self._waker.send(b"!")
        except OSError:  # `run` has been woken already, or has ended
            return

    def stop(self) -> None:
        """Makes `run` return. May be called in any thread."""
        self._waker.close()

    def run(self) -> None:
        try:
            while self._receive(self._seconds_left()):
                self._read_inbox()
                due = self._schedule.pop(time.monotonic())
                starting = [check for check in due if check.exchange is None]
                self._time_out([check for check in due if check.exchange is not None])
                for check in starting:
                    self._begin(check)
                if self._counts and time.monotonic() >= self._counted_at + COUNT_SECONDS:
                    self._send_counts()
        finally:
            for check in self._checks.values():
                self._close(check)
            self._epoll.close()
            self._woken.close()

    def _receive(self, seconds: float | None) -> bool:
        """Waits at most `seconds` (None: without limit) for the sockets, and handles those that are ready. Returns
        False after `stop`."""
        for descriptor, _ in self._epoll.poll(seconds):
            check = self._running.get(descriptor)
            if check is not None:
                self._proceed(check)
            elif descriptor == self._woken.fileno() and not self._woken.recv(4096):
                return False
        return True

    def _seconds_left(self) -> float | None:
        if not self._inbox.empty():
            return 0.0
        check_due_at = self._schedule.earliest()
        counts_due_at = self._counted_at + COUNT_SECONDS if self._counts else None
        times = [each for each in (check_due_at, counts_due_at) if each is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _read_inbox(self) -> None:
        while not self._inbox.empty():
            selection = self._targets.select(self._inbox.get())
            now = time.monotonic()
            for target in selection.ended:
                check = self._checks.pop(target)
                self._close(check)
                self._schedule.cancel(check)
            # The policy may be gone. Send its counts now, or a later policy of the same name would get them.
            if selection.ended and self._counts:
                self._send_counts()
            for target in selection.begun:
                check = _Check(
                    target=target,
                    request=CheckRequest(target.check, target.pod.address),
                    due_at=first_time(self._targets_begun, target.check.interval, now),
                )
                self._targets_begun += 1
                self._checks[target] = check
                self._schedule.set(check, check.due_at)
            for target in selection.disputed:
                self._on_message(target.finding(now))

    def _time_out(self, checks: list[_Check]) -> None:
        """An answer that has arrived by now still counts, since this thread may be late although the Pod was not."""
        if checks:
            self._receive(0.0)
        for check in checks:
            if check.exchange is not None:
                seen = f"no answer within {_shown(check.target.check.timeout)}"
                self._decide(check, f"{seen}, {check.exchange.remark}" if check.exchange.remark else seen)
                self._end(check)

    def _begin(self, check: _Check) -> None:
        check.has_result = False
        try:
            check.exchange = check.request.begin()
            if check.exchange.is_ready and self._proceed(check):
                return
            self._epoll.register(check.exchange.socket, check.exchange.events)
        except OSError as error:
            self._decide(check, f"it cannot be sent ({_reason(error)})")
            self._end(check)
            return
        self._running[check.exchange.socket.fileno()] = check
        self._schedule.set(check, time.monotonic() + check.target.check.timeout)

    def _proceed(self, check: _Check) -> bool:
        """Returns whether the exchange is over."""
        exchange = check.exchange
        assert exchange is not None
        try:
            is_over = exchange.proceed()
        except (CheckFailed, OSError) as error:
            is_over = True
            self._decide(check, str(error) if isinstance(error, CheckFailed) else _reason(error))
        if exchange.succeeded:
            self._decide(check, "")
        if is_over:
            self._end(check)
        return is_over

    def _decide(self, check: _Check, failure: str) -> None:
        """Only the first result of a check counts: the rest of an answer can still fail to arrive after it."""
        if check.has_result:
            return
        check.has_result = True
        target, now = check.target, time.monotonic()
        self._counts[target.policy, not failure] += 1
        if target.add_result(failure, now):
            self._on_message(target.finding(now))

    def _end(self, check: _Check) -> None:
        self._close(check)
        check.due_at = next_time(check.due_at, check.target.check.interval, time.monotonic())
        self._schedule.set(check, check.due_at)

    def _close(self, check: _Check) -> None:
        if check.exchange is not None:
            self._running.pop(check.exchange.socket.fileno(), None)
            check.exchange.socket.close()  # this removes it from the epoll set, too
            check.exchange = None

    def _send_counts(self) -> None:
        counts = tuple(
            CheckCount(policy=policy, successes=self._counts[policy, True], failures=self._counts[policy, False])
            for policy in dict.fromkeys(policy for policy, _ in self._counts)
        )
        self._counts.clear()
        self._counted_at = time.monotonic()
        self._on_message(HealthChecksCounted(counts=counts))


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


def _shown(seconds: float) -> str:
    return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1000:g} ms"
