"""LeaderElector: runs the election of the one controller process that writes.

It receives and sends no messages. StatusWriter asks `Election.leads` at the moment of each write instead, because a
message that says so might be outdated when it is read.
"""

from __future__ import annotations

from typing import Protocol

from actors.framework.actor import AgentActor, OwnedThread


class RunnableElection(Protocol):
    """The part of `k8s.election.election.Election` that runs and ends the election; only this actor uses it."""

    def run(self) -> None: ...

    def stop(self) -> None: ...

    def release(self) -> None: ...


class LeaderElector(AgentActor):
    def __init__(self, *, election: RunnableElection) -> None:
        super().__init__()
        self._election = election

    def started(self) -> None:
        self.own(OwnedThread(self, "election", self._election.run, self._election.stop))

    def stopped(self) -> None:
        """Nothing is written after this, since the first actor to start is the last to stop."""
        self._election.release()
