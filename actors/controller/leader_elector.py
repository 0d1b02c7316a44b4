"""LeaderElector: owns the Lease by which one of the controller's processes leads.

In, out: nothing. Whether this process leads is asked where it counts, at the moment of a write: a message that says so
may be old when it is read.
"""

from __future__ import annotations

from typing import Protocol

from actors.framework.actor import AgentActor, OwnedThread


class Campaign(Protocol):
    """`k8s.status.leader.Leadership`, of which this actor alone runs and ends the election."""

    def run(self) -> None: ...

    def stop(self) -> None: ...

    def release(self) -> None: ...


class LeaderElector(AgentActor):
    def __init__(self, *, campaign: Campaign) -> None:
        super().__init__()
        self._campaign = campaign

    def started(self) -> None:
        self.own(OwnedThread(self, "lease", self._campaign.run, self._campaign.stop))

    def stopped(self) -> None:
        """The first actor to start is the last to stop: nobody writes any more."""
        self._campaign.release()
