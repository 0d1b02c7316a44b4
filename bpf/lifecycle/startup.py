"""What the agent does before its actors run: finds missing kernel features, locks our directory, has the build loaded.

Nothing is attached here. A build that is pinned already is adopted; otherwise a short-lived child process
(bpf.lifecycle.loader) compiles and loads it, so that the agent never has BCC in its memory.
"""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
from pathlib import Path

from bpf.build import MapSizes, build_name, rows_layout, sockets_layout
from bpf.cgroups.hierarchy import find_cgroup, own_cgroup
from bpf.errors import DatapathError
from bpf.lifecycle import pins
from bpf.lifecycle.attachments import attached_builds
from bpf.lifecycle.bpffs import prepare_directory
from bpf.lifecycle.carry_over import start_with_former_counters
from bpf.lifecycle.datapath import Datapath
from bpf.lifecycle.kernel_features import missing_features
from bpf.maps.kernel_map import KernelMap
from bpf.maps.lease import lease_age_seconds
from bpf.maps.packing import ONLY_KEY, pack_number
from config.settings import DatapathSettings

_log = logging.getLogger(__name__)

_ROOT = Path(__file__).resolve().parents[2]
_OUTPUT_LINES = 25
"""How many of its last lines are shown when the child process fails. The compiler's errors come at the end."""


def prepare(settings: DatapathSettings) -> Datapath:
    """Makes this build ready to be attached. Raises DatapathError, which says what is missing or wrong."""
    missing = missing_features()
    if missing:
        raise DatapathError("this kernel or container lacks: " + "; ".join(missing))
    cgroup = find_cgroup(settings.cgroup)
    prepare_directory(settings.bpffs)
    lock = _take_lock(settings.bpffs)
    sizes = MapSizes(settings.max_frontends, settings.max_backends, settings.max_affinity)
    build = build_name(sizes)
    pins.remove_build(settings.bpffs / pins.LOADING)
    if (settings.bpffs / build).exists():
        _log.info("adopting the pinned programs and maps of build %s", build)
    else:
        _log.info("compiling and loading build %s", build)
        _load(settings.bpffs, build, sizes)
        start_with_former_counters(settings.bpffs, build)
        _warn_of_lost_lease(settings)
    _exempt_agent(settings.bpffs)
    datapath = Datapath(bpffs=settings.bpffs, build=build, cgroup=cgroup, lock=lock)
    for fault in datapath.coverage_faults():
        _log.warning("%s", fault)
    return datapath


def _take_lock(bpffs: Path) -> int:
    """Descriptor of a lock on the directory. The lock excludes agents in other containers as well, since all see the
    node's directory. The kernel releases it when this process ends."""
    lock = os.open(bpffs, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        msg = (
            f"another agent is already running on {bpffs}, and was left alone; "
            "stop it first, or give this one another datapath.bpffs"
        )
        raise DatapathError(msg) from None
    return lock


def _load(bpffs: Path, build: str, sizes: MapSizes) -> None:
    """Compiles, loads and pins the build. It appears under its name only when it is complete."""
    loading = bpffs / pins.LOADING
    loading.mkdir()
    (loading / (pins.LAYOUT + rows_layout())).mkdir()
    (loading / (pins.SOCKETS + sockets_layout())).mkdir()
    sockets = bpffs / (pins.SOCKETS + sockets_layout())
    sockets.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "bpf.lifecycle.loader", str(loading), str(sockets), *map(str, sizes)]
    result = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        pins.remove_build(loading)
        lines = (result.stderr + result.stdout).strip().splitlines() or ["no output"]
        raise DatapathError("the programs could not be compiled or loaded:\n" + "\n".join(lines[-_OUTPUT_LINES:]))
    loading.rename(bpffs / build)


def _warn_of_lost_lease(settings: DatapathSettings) -> None:
    """Warns when the attached build lost its lease while ours was compiled.

    The agent must not renew it meanwhile: the lease says that somebody watches the Pods, and nobody does before the
    actors run. If the agent renewed it, a call might go to a Pod that no longer exists. Without it, calls take the
    normal way, as on a node without an agent.
    """
    for build in attached_builds(settings.bpffs):
        lease = KernelMap(settings.bpffs / build / "maps" / "lease")  # another version may have other maps than ours
        age = lease_age_seconds(lease)
        lease.close()
        if 0 < settings.lease_seconds < age:
            _log.warning(
                "the attached build %s lost its lease while this build was compiled: it was renewed %.0f s ago, and "
                "datapath.lease_seconds is %d. Calls take the normal way until this agent knows the node's Pods. If "
                "this node always compiles that slowly, raise datapath.lease_seconds",
                build,
                age,
                settings.lease_seconds,
            )


def _exempt_agent(bpffs: Path) -> None:
    """Tells the programs of every build which cgroup is the agent's own, so that it is never redirected (P17).

    A former build must know it as well: its programs stay attached until ours are, and might redirect the agent's calls
    to the API server.
    """
    own = own_cgroup(find_cgroup("auto"))
    if own is None:
        _log.warning(
            "the agent's own cgroup was not found below the cgroup2 mounts, so the agent's own calls are redirected "
            "like those of others. Mount the node's cgroups into its container, and let no policy claim the API "
            "server's address"
        )
    for build in pins.builds(bpffs):
        pin = bpffs / build / "maps" / "agent_cgroup"
        if pins.is_pin(pin):  # an older version has no such map
            row = KernelMap(pin)
            row.update(ONLY_KEY, pack_number(own or 0))
            row.close()
