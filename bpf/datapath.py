"""The one owner of what is pinned and attached: loading, adopting, attaching, detaching (DESIGN 5.5).

Below the configured directory on a bpffs, which bpf/bpffs.py looks after:
    BUILD/maps/NAME, BUILD/programs/HOOK   one build's maps and programs
    links/HOOK                             the attachments; they outlive us, and are swapped in place by an upgrade
    links/HOOK-former                      after an upgrade, the way back of sockets that were redirected before it

Made in `loading` and renamed, so a BUILD is whole or not there. The attach is the commit: it comes last, after the maps
are filled, and until then an earlier build's programs go on with their own maps.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bpf import bpffs as pins
from bpf import libbpf
from bpf.build import HOOKS, WAY_BACK, MapSizes, build_name, rows_layout
from bpf.cgroups import coverage_faults, find_cgroup
from bpf.errors import DatapathError
from bpf.maps import PinnedMaps
from bpf.probes import missing_features
from config.settings import DatapathSettings

_log = logging.getLogger(__name__)

_ROOT = Path(__file__).resolve().parent.parent


class Datapath:
    """One build, pinned and locked for this process. Attached by `attach_all`, when MapWriter has filled the maps."""

    def __init__(self, *, bpffs: Path, build: str, cgroup: Path, lock: int) -> None:
        self.bpffs = bpffs
        self.build = build
        self.cgroup = cgroup
        self._lock = lock
        self._maps: PinnedMaps | None = None

    def open_maps(self) -> PinnedMaps:
        """Opened anew, for an owner of its own."""
        return PinnedMaps(self.bpffs / self.build / "maps")

    @property
    def maps(self) -> PinnedMaps:
        """For readers in this process; opened once."""
        if self._maps is None:
            self._maps = self.open_maps()
        return self._maps

    def attach_all(self) -> None:
        """Attaches every hook, or swaps in this build's program where another's is; then removes other builds."""
        self._carry_over()
        (self.bpffs / pins.LINKS).mkdir(exist_ok=True)
        with _opened_directory(self.cgroup) as cgroup:
            for hook, attach_type in HOOKS.items():
                with _opened_pin(self.bpffs / self.build / "programs" / hook) as program:
                    self._attach(hook, attach_type, program, cgroup)
        for build in pins.builds(self.bpffs):
            if build != self.build:
                _log.info("removing the programs and maps of build %s", build)
                pins.remove_build(self.bpffs / build)
        for hook, names in self.programs_before_us().items():
            _log.warning(
                "%s: %s run before us and may translate an address before we see it; kernel 6.17 lets us run first, "
                "on an older one start this agent before whoever attached them",
                hook,
                ", ".join(names),
            )

    def _attach(self, hook: str, attach_type: int, program: int, cgroup: int) -> None:
        path = self.bpffs / pins.LINKS / hook
        keep_former = False
        if path.exists():
            with _opened_pin(path) as link:
                here = libbpf.LinkInfo(link)
                if here.cgroup_id == os.fstat(cgroup).st_ino:
                    if here.program_id == libbpf.program_id(program):
                        return
                    _log.info("%s: the program of build %s takes over", hook, self.build)
                    if hook not in WAY_BACK:
                        libbpf.link_update(link, program)
                        return
                    keep_former = True
            # Attached elsewhere, by another configuration: to both for a moment, to neither never. On the way back the
            # former program stays: the sockets that it redirected are known to its storage alone.
            path.rename(_former(path))
        new = self._create_link(program, cgroup, attach_type)
        try:
            libbpf.pin(new, path)
        finally:
            os.close(new)
        if not keep_former:
            _former(path).unlink(missing_ok=True)

    def _create_link(self, program: int, cgroup: int, attach_type: int) -> int:
        """First of all programs on the cgroup where the kernel can: a CNI's socket load balancer would translate a
        virtual IP before we see it."""
        try:
            return libbpf.link_create(program, cgroup, attach_type, libbpf.BPF_F_BEFORE)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return libbpf.link_create(program, cgroup, attach_type, 0)

    def _carry_over(self) -> None:
        """Takes counters and affinity over from the build that is replaced, when its rows look the same."""
        for build in pins.builds(self.bpffs):
            if build == self.build or not (self.bpffs / build / (pins.LAYOUT + rows_layout())).exists():
                continue
            old = PinnedMaps(self.bpffs / build / "maps")
            for name in ("counters", "affinity"):
                for key, value in old[name].items():
                    try:
                        self.maps[name].update(key, value)
                    except OSError as error:
                        _log.warning("%s rows of build %s are lost in part: %s", name, build, error)
                        break
            old.close()

    def attached_hooks(self) -> list[str]:
        """Hooks at which this build's program is attached now."""
        return [row["hook"] for row in programs(self.bpffs) if row["attached"] and row["build"] == self.build]

    def programs_before_us(self) -> dict[str, list[str]]:
        """Hook -> names of foreign programs that run before ours, and may translate an address before we see it."""
        before = {}
        ours = {row["hook"]: row["program_id"] for row in programs(self.bpffs)}
        with _opened_directory(self.cgroup) as cgroup:
            for hook, attach_type in HOOKS.items():
                ids = libbpf.effective_programs(cgroup, attach_type)
                if ours.get(hook) in ids:
                    names = [_name_of(identifier) for identifier in ids[: ids.index(ours[hook])]]
                    if names:
                        before[hook] = names
        return before

    def warnings(self) -> list[str]:
        """What keeps calls from being redirected although all is well with us, with the remedy."""
        return coverage_faults(self.cgroup)

    def lease_age_seconds(self) -> float:
        """Seconds since the lease was renewed."""
        return (time.monotonic_ns() - self.maps.lease_renewed_ns()) / 1e9

    def close(self) -> None:
        """Lets another agent take over; everything stays pinned and attached."""
        os.close(self._lock)


def prepare(settings: DatapathSettings) -> Datapath:
    """Probes the kernel, takes the lock and has this build pinned: adopted when it is there, else compiled and loaded.

    Raises DatapathError with what is missing or wrong.
    """
    missing = missing_features()
    if missing:
        raise DatapathError("this kernel or container lacks: " + "; ".join(missing))
    cgroup = find_cgroup(settings.cgroup)
    pins.prepare_directory(settings.bpffs)
    lock = _take_lock(settings.bpffs)
    sizes = MapSizes(settings.max_frontends, settings.max_backends, settings.max_affinity)
    build = build_name(sizes)
    pins.remove_build(settings.bpffs / pins.LOADING)
    if (settings.bpffs / build).exists():
        _log.info("adopting the pinned programs and maps of build %s", build)
    else:
        _log.info("compiling and loading build %s", build)
        _load(settings.bpffs, build, sizes)
    datapath = Datapath(bpffs=settings.bpffs, build=build, cgroup=cgroup, lock=lock)
    for warning in datapath.warnings():
        _log.warning("%s", warning)
    return datapath


def _load(bpffs: Path, build: str, sizes: MapSizes) -> None:
    loading = bpffs / pins.LOADING
    loading.mkdir()
    (loading / (pins.LAYOUT + rows_layout())).mkdir()
    command = [sys.executable, "-m", "bpf.loader", str(loading), *map(str, sizes)]
    result = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        pins.remove_build(loading)
        lines = (result.stderr + result.stdout).strip().splitlines() or ["no output"]
        raise DatapathError("the programs could not be compiled or loaded:\n" + "\n".join(lines[-25:]))
    loading.rename(bpffs / build)


def _take_lock(bpffs: Path) -> int:
    """A lock on the directory itself, which the kernel drops when we die; in a container, too, it is the node's."""
    lock = os.open(bpffs, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        msg = (
            f"another agent runs on {bpffs} already and is left alone; "
            "stop it first, or give this one another datapath.bpffs"
        )
        raise DatapathError(msg) from None
    return lock


def programs(bpffs: Path) -> list[dict[str, Any]]:
    """One entry a hook that is pinned or attached: hook, attached, cgroup_id, program_id, link_id, build."""
    if not pins.holds_pins(bpffs):
        return []
    found = []
    for hook in sorted(HOOKS):
        build_of = {}
        for build in pins.builds(bpffs):
            pin = bpffs / build / "programs" / hook
            if pins.is_pin(pin):  # another version may lack the hook
                with _opened_pin(pin) as program:
                    build_of[libbpf.program_id(program)] = build
        path = bpffs / pins.LINKS / hook
        if pins.is_pin(path):
            with _opened_pin(path) as link:
                info = libbpf.LinkInfo(link)
            found.append(
                {
                    "hook": hook,
                    "attached": info.cgroup_id != 0,
                    "cgroup_id": info.cgroup_id,
                    "program_id": info.program_id,
                    "link_id": info.link_id,
                    "build": build_of.get(info.program_id, ""),
                }
            )
        elif build_of:
            identifier, build = next(iter(build_of.items()))
            row = {
                "hook": hook,
                "attached": False,
                "cgroup_id": 0,
                "program_id": identifier,
                "link_id": 0,
                "build": build,
            }
            found.append(row)
    return found


def active_build(bpffs: Path) -> str | None:
    """The build whose programs are attached, else any that is pinned."""
    attached = [str(row["build"]) for row in programs(bpffs) if row["attached"] and row["build"]]
    return attached[0] if attached else next(iter(pins.builds(bpffs)), None)


def detach(bpffs: Path) -> list[str]:
    """Takes every link, program and map of ours out of the kernel; one line for each thing that was removed."""
    if not pins.holds_pins(bpffs):
        return []
    removed = []
    links = bpffs / pins.LINKS
    for hook in reversed(HOOKS):  # the way there before the way back
        for path in (links / hook, _former(links / hook)):
            if pins.is_pin(path):
                with _opened_pin(path) as link:
                    libbpf.link_detach(link)  # also where a running agent holds it open
                path.unlink()
                removed.append(f"link {hook}")
    for build in [*pins.builds(bpffs), pins.LOADING]:
        removed += [
            f"{path.parent.name.removesuffix('s')} {path.name} of build {build}"
            for path in pins.remove_build(bpffs / build)
        ]
    removed += [f"map {path.relative_to(bpffs)}" for path in pins.remove_sockets(bpffs)]
    pins.remove_directory(bpffs)
    return removed


def _former(link: Path) -> Path:
    """Where a link that is about to be replaced is kept; a bpffs takes no dots in names."""
    return link.with_name(f"{link.name}-former")


def _name_of(program_id: int) -> str:
    program = libbpf.program_by_id(program_id)
    try:
        return f"{libbpf.program_name(program)} (id {program_id})"
    finally:
        os.close(program)


@contextmanager
def _opened_pin(path: Path) -> Iterator[int]:
    descriptor = libbpf.open_pin(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _opened_directory(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
