"""Messages of the framework itself: ticks, failures of actors, and pings. `Message` is the base of all messages."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Message:
    """Base of all messages; the test of dispatch tables walks its subclasses."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TickElapsed(Message):
    """An actor's own clock thread -> that actor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorFailed(Message):
    """An actor -> Supervisor: it failed, and has stopped or is about to."""

    name: str


class ActorState(StrEnum):
    """In /status."""

    RUNNING = "running"
    RESTARTING = "restarting"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorReport:
    name: str
    state: ActorState
    restarts: int
    mailbox: int
    """Number of messages that are waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorsReported(Message):
    """Supervisor -> its reporters, each second."""

    actors: tuple[ActorReport, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping(Message):
    """Anybody -> any actor, by `ask` with a timeout: `AgentActor` answers with the actor's name."""
