"""What the framework says of itself: life, death and ticks of actors. `Message` is the base of all messages."""

from __future__ import annotations

from dataclasses import dataclass


class Message:
    """Base of all messages; the test of dispatch tables walks its subclasses."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TickElapsed(Message):
    """An actor's own clock thread -> that actor; `due` is time.monotonic() at which the tick was due."""

    due: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorFailed(Message):
    """An actor -> Supervisor: it stopped, or ends now. Phase is `start`, `handle` or `thread`."""

    name: str
    phase: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorReport:
    name: str
    state: str
    """`running`, `restarting` or `stuck`."""
    restarts: int
    mailbox: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorsReported(Message):
    """Supervisor -> StatusReporter, MetricsExporter, each second."""

    actors: tuple[ActorReport, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping(Message):
    """Asked with a time-out; answered with the actor's name by `AgentActor` itself."""
