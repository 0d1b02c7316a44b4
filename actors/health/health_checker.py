"""HealthChecker: owns the health checks of backend Pods and their results (rule P19).

In: ChecksSelected (ConflictResolver), HealthChanged and HealthChecksCounted (own checking thread). Out: HealthChanged
(ConflictResolver), HealthChecksCounted (MetricsExporter), ResyncDesiredState (ConflictResolver) at its start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from actors.framework.actor import AgentActor, OwnedThread
from actors.framework.messages import Message
from actors.health.check_loop import CheckLoop
from actors.messages.checks import ChecksSelected, HealthChanged, HealthChecksCounted
from actors.messages.resync import ResyncDesiredState


class HealthChecker(AgentActor):
    HANDLERS: ClassVar[Mapping[type[Message], str]] = {
        ChecksSelected: "_on_checks_selected",
        HealthChanged: "_on_health_changed",
        HealthChecksCounted: "_on_health_checks_counted",
    }

    def __init__(self) -> None:
        super().__init__()
        self._loop = CheckLoop(self.tell_self)

    def started(self) -> None:
        self.own(OwnedThread(self, "health-checks", self._loop.run, self._loop.stop))
        self.send("ConflictResolver", ResyncDesiredState())

    def _on_checks_selected(self, message: ChecksSelected) -> None:
        self._loop.select(message)

    def _on_health_changed(self, message: HealthChanged) -> None:
        self.send("ConflictResolver", message)

    def _on_health_checks_counted(self, message: HealthChecksCounted) -> None:
        self.send("MetricsExporter", message)
