"""Rows that a new build takes over from the build that it replaces: counters, and which backend a client has.

Only builds that lay out their rows in the same way can do that.

Rows are copied twice. After the new build is loaded, `start_with_former_counters` gives it the counters and their
policies, so that metrics don't fall to zero. Meanwhile the former build's programs go on counting. Just before ours are
attached, `carry_over` copies what they and the closer have counted until then, and the affinity rows.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterator
from pathlib import Path

from bpf.lifecycle import pins
from bpf.lifecycle.opened_maps import has_our_rows
from bpf.maps.packing import POLICY_ID
from bpf.maps.pinned_maps import PinnedMaps

_log = logging.getLogger(__name__)


def start_with_former_counters(bpffs: Path, build: str) -> None:
    """Copies the former build's counters, and which policies they belong to, into the new build."""
    new = PinnedMaps(bpffs / build / "maps")
    for former in _maps_of_same_layout(bpffs, build):
        for name in ("counters", "policies"):
            _copy(former, new, name)
        former.close()
    new.close()


def carry_over(bpffs: Path, build: str, maps: PinnedMaps) -> None:
    """Brings the counters up to date, and copies affinity and what the closer has counted. `maps` are the build's own.

    By now MapWriter has removed the rows of policies that no longer exist; their counters are not copied back.
    """
    for former in _maps_of_same_layout(bpffs, build):
        theirs, ours = former.counted_policies(), maps.counted_policies()
        shared = {POLICY_ID.pack(each) for each, row in ours.items() if row.is_same_policy(theirs.get(each))}
        _copy(former, maps, "counters", shared)
        _copy(former, maps, "affinity")
        _copy(former, maps, "stale_closed")
        former.close()


def _maps_of_same_layout(bpffs: Path, build: str) -> Iterator[PinnedMaps]:
    """The maps of each other build whose rows are laid out like this one's. The caller closes them."""
    for other in pins.builds(bpffs):
        if other != build and has_our_rows(bpffs, other):
            yield PinnedMaps(bpffs / other / "maps")


def _copy(former: PinnedMaps, new: PinnedMaps, name: str, keys: Container[bytes] | None = None) -> None:
    """Copies the rows of one map; with `keys`, only those."""
    for key, value in former[name].items():
        if keys is None or key in keys:
            try:
                new[name].update(key, value)
            except OSError as error:
                _log.warning(
                    "not all rows of %s could be copied from the former build, the others are lost: %s", name, error
                )
                return
