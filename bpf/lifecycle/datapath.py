"""The agent's access to the kernel side: the maps of its build, attaching it, and what is attached now.

`bpf.lifecycle.startup.prepare` makes it. Attaching comes last, once MapWriter has filled the maps, and puts everything
into effect. Until then an earlier build's programs go on with their own maps. Why:
docs/decisions/0002-pinned-and-adopted.md.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from bpf.cgroups.coverage import coverage_faults
from bpf.lifecycle import pins
from bpf.lifecycle.attaching import HeldLink, attach
from bpf.lifecycle.attachments import programs_before
from bpf.lifecycle.carry_over import carry_over
from bpf.maps.lease import lease_age_seconds
from bpf.maps.pinned_maps import PinnedMaps

_log = logging.getLogger(__name__)


class Datapath:
    """One build, pinned, and locked for this process."""

    def __init__(self, *, bpffs: Path, build: str, cgroup: Path, lock: int) -> None:
        self.bpffs = bpffs
        self.build = build
        self.cgroup = cgroup
        self._lock = lock
        """Descriptor that holds the lock on `bpffs`."""
        self._maps: PinnedMaps | None = None
        self._links: dict[str, HeldLink] = {}
        """Hook -> its link. Kept open, so that checking it needs no new descriptor."""

    def open_maps(self) -> PinnedMaps:
        """Opens the maps for a caller that will close them."""
        return PinnedMaps(self.bpffs / self.build / "maps")

    @property
    def maps(self) -> PinnedMaps:
        """The maps for all readers in this process, opened once."""
        if self._maps is None:
            self._maps = self.open_maps()
        return self._maps

    def attach_all(self) -> None:
        """Attaches this build at every hook, then removes all other builds."""
        carry_over(self.bpffs, self.build, self.maps)
        links = attach(self.bpffs, self.build, self.cgroup)
        # Other threads read the dictionary, so it is replaced and never changed.
        former, self._links = self._links, links
        for link in former.values():
            link.close()
        for build in pins.builds(self.bpffs):
            if build != self.build:
                _log.info("removing the programs and maps of build %s", build)
                pins.remove_build(self.bpffs / build)
        for hook, names in self.programs_before_us().items():
            _log.warning(
                "%s: %s on cgroup %s runs before ours and may translate an address before we see it. "
                "`bpftool prog show id ID` on the node tells whose it is. To run first, detach our programs "
                "(run.py detach), stop the other software, start this agent, then start the other software again",
                hook,
                ", ".join(names),
                self.cgroup,
            )

    def attached_hooks(self) -> list[str]:
        """Hooks at which this build's program is attached now."""
        return [hook for hook, link in sorted(self._links.items()) if link.holds()]

    def programs_before_us(self) -> dict[str, list[str]]:
        """Hook -> other software's programs that run before ours (see `bpf.lifecycle.attachments.programs_before`)."""
        return programs_before(self.bpffs, self.cgroup)

    def coverage_faults(self) -> list[str]:
        """Why no Pod's calls would be redirected, with the remedy (see `bpf.cgroups.coverage.coverage_faults`)."""
        return coverage_faults(self.cgroup)

    def lease_age_seconds(self) -> float:
        """Seconds since the lease was renewed."""
        return lease_age_seconds(self.maps["lease"])

    def close(self) -> None:
        """Lets another agent take over. Everything stays pinned and attached."""
        for link in self._links.values():
            link.close()
        self._links.clear()
        os.close(self._lock)
