"""Lookups from a Pod at a constant rate, by openloop: what went unanswered, and for how long.

    with Load(node, "resolver", kept=5) as load:
        ...
    assert load.result.lookups.unanswered == 0

The client runs in the Pod's cgroup, network and file system, but not by `kubectl exec`, so that it goes on without the
API server.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from tests.cluster.dns import NAME
from tests.cluster.machine import Machine
from tests.cluster.places import CLUSTER_DNS

RATE = 1000
"""Lookups per second."""
END_SECONDS = 30.0
TIMEOUT_MS = 5000
"""As long as glibc and musl wait: what has no answer then was lost, and was not just slow."""


@dataclass(frozen=True, kw_only=True)
class Count:
    """Counts of one kind of lookup, as the head of openloop.c defines them."""

    sent: int
    answered: int
    unanswered: int
    reasons: Mapping[str, int]
    slowest_ms: float
    longest_silence_ms: float

    def __str__(self) -> str:
        why = f" ({', '.join(f'{reason} {number}' for reason, number in self.reasons.items())})" if self.reasons else ""
        return f"{self.unanswered} of {self.sent} unanswered{why}, longest silence {self.longest_silence_ms:.0f} ms"


@dataclass(frozen=True, kw_only=True)
class KeptCount(Count):
    """Counts of the sockets that are kept."""

    longest_unnoticed_ms: float
    slowest_recovery_ms: float
    silent: int

    def __str__(self) -> str:
        return f"{super().__str__()}, unnoticed {self.longest_unnoticed_ms:.0f} ms, {self.silent} sockets silent"


@dataclass(frozen=True, kw_only=True)
class Result:
    seconds: float
    late_ms: float
    lookups: Count
    udp: Count
    udp_connected: Count
    tcp: Count
    kept: KeptCount
    quiet: KeptCount

    def __str__(self) -> str:
        kept = (f"; {name}: {count}" for name, count in (("kept", self.kept), ("quiet", self.quiet)) if count.sent)
        return f"{self.lookups}{''.join(kept)}; sent at most {self.late_ms:.0f} ms late"


def parse(line: str) -> Result:
    """The line that openloop prints at its end."""
    output: dict[str, Any] = json.loads(line)
    lookups, udp, connected, tcp = (Count(**output[name]) for name in ("lookups", "udp", "udp_connected", "tcp"))
    return Result(
        seconds=output["seconds"],
        late_ms=output["late_ms"],
        lookups=lookups,
        udp=udp,
        udp_connected=connected,
        tcp=tcp,
        kept=KeptCount(**output["kept"]),
        quiet=KeptCount(**output["quiet"]),
    )


class Asking:
    """A program that prints "asking" once its first questions were answered, asks its quiet sockets too after SIGUSR1,
    and prints what it counted, one line of JSON, after SIGTERM."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """`process` writes to a pipe. Raises RuntimeError when it does not begin; otherwise it has begun."""
        self._process = process
        assert process.stdout
        line = process.stdout.readline()
        if line != "asking\n":
            process.kill()
            msg = f"{process.args!r} did not begin: {line!r}"
            raise RuntimeError(msg)

    def ask_quiet(self) -> None:
        self._process.send_signal(signal.SIGUSR1)

    def end(self, seconds: float) -> str:
        """Ends the program and returns what it counted. It may take `seconds`, since it awaits its last answers."""
        self._process.terminate()
        return self._process.communicate(timeout=seconds)[0]


class Load:
    """Context manager; `result` is valid after it. The load has begun, with an answer for each kept socket, when the
    context is entered."""

    result: Result
    _asking: Asking

    def __init__(
        self, node: Machine, pod: str, *, rate: int = RATE, kept: int = 0, quiet: int = 0, timeout_ms: int = TIMEOUT_MS
    ) -> None:
        self._node, self._pod = node, pod
        options = {"rate": rate, "kept": kept, "quiet": quiet, "timeout-ms": timeout_ms}
        self._arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]

    def __enter__(self) -> Self:
        command = ["/usr/bin/openloop", CLUSTER_DNS, NAME, *self._arguments]
        self._asking = Asking(self._node.beside(self._pod, command, stdout=subprocess.PIPE, text=True))
        return self

    def ask_quiet(self) -> None:
        """From now on the quiet sockets ask like the others."""
        self._asking.ask_quiet()

    def __exit__(self, *_: object) -> None:
        self.result = parse(self._asking.end(END_SECONDS))
