"""The one owner of what is pinned and attached: loading, adopting, attaching, detaching.

Why it is done so: docs/decisions/0002-pinned-and-adopted.md.

Below the configured directory on a bpffs, which bpf/bpffs.py looks after:
    BUILD/maps/NAME, BUILD/programs/HOOK   one build's maps and programs
    sockets-LAYOUT/NAME                    the socket storages of all builds that lay them out alike, so that a socket
                                           keeps its backend and its way back through an upgrade
    links/HOOK                             the attachments; they outlive us, and are swapped in place by an upgrade
    links/HOOK-former-LAYOUT-CGROUP        the way back of sockets that were redirected by a build of another layout, or
                                           on another cgroup; kept, since such sockets may live for long

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
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bpf import bpffs as pins
from bpf import libbpf
from bpf.build import HOOKS, WAY_BACK, MapSizes, build_name, rows_layout, sockets_layout
from bpf.cgroups import coverage_faults, find_cgroup, own_cgroup
from bpf.errors import DatapathError
from bpf.maps import PinnedMaps
from bpf.probes import missing_features
from bpf.rows import POLICY_ID
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
        self._links: dict[str, tuple[int, int]] = {}
        """Hook -> descriptor of its link, and id of our program. Kept open, so that a look at them needs none."""

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
        links = {}
        with _opened_directory(self.cgroup) as cgroup:
            for hook, attach_type in HOOKS.items():
                with _opened_pin(self.bpffs / self.build / "programs" / hook) as program:
                    self._attach(hook, attach_type, program, cgroup)
                    links[hook] = libbpf.open_pin(self.bpffs / pins.LINKS / hook), libbpf.program_id(program)
        # Replaced whole: other threads look at it.
        former, self._links = self._links, links
        for link, _ in former.values():
            os.close(link)
        for build in pins.builds(self.bpffs):
            if build != self.build:
                _log.info("removing the programs and maps of build %s", build)
                pins.remove_build(self.bpffs / build)
        for hook, names in self.programs_before_us().items():
            _log.warning(
                "%s: %s on cgroup %s runs before ours and may translate an address before we see it; "
                "`bpftool prog show id ID` on the node tells whose it is. Start this agent before whoever attached it: "
                "detach ours (run.py detach), stop the other one, then start this agent first",
                hook,
                ", ".join(names),
                self.cgroup,
            )

    def _attach(self, hook: str, attach_type: int, program: int, cgroup: int) -> None:
        path = self.bpffs / pins.LINKS / hook
        cgroup_id = os.fstat(cgroup).st_ino
        if path.exists():
            with _opened_pin(path) as link:
                here = libbpf.LinkInfo(link)
                layout = self._sockets_layout_of(hook, here.program_id)
                keeps_sockets = hook not in WAY_BACK or layout == sockets_layout()
                if here.cgroup_id == cgroup_id and keeps_sockets:
                    if here.program_id != libbpf.program_id(program):
                        _log.info("%s: the program of build %s takes over", hook, self.build)
                        libbpf.link_update(link, program)
                    return
            # The former program stays attached until the new one is, so that calls are never unhandled; on the way back
            # it stays beyond that, since it alone knows the sockets that it redirected.
            path.rename(_former(path, layout, here.cgroup_id))
        new = self._create_link(program, cgroup, attach_type)
        try:
            libbpf.pin(new, path)
        finally:
            os.close(new)
        self._drop_former(hook, cgroup_id)

    def _drop_former(self, hook: str, cgroup_id: int) -> None:
        """Removes former links that nothing needs: all but the way back, and there those whose sockets the attached
        program knows, or whose cgroup is gone."""
        for path in _formers(self.bpffs / pins.LINKS / hook):
            with _opened_pin(path) as link:
                gone = libbpf.LinkInfo(link).cgroup_id == 0
            known = path == _former(self.bpffs / pins.LINKS / hook, sockets_layout(), cgroup_id)
            if gone or known or hook not in WAY_BACK:
                path.unlink()

    def _sockets_layout_of(self, hook: str, program: int) -> str:
        """Layout of the socket storages that a program uses; its own id where its build did not say so."""
        for build in pins.builds(self.bpffs):
            pin = self.bpffs / build / "programs" / hook
            if pins.is_pin(pin):  # another version may lack the hook
                with _opened_pin(pin) as pinned:
                    if libbpf.program_id(pinned) == program:
                        return pins.sockets_layout_of(self.bpffs / build) or str(program)
        return str(program)

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
        """Takes the present counters and affinity over from the build that is replaced, when its rows look the same.

        Counters only of policies that still exist: MapWriter has removed the rows of the others by now.
        """
        for old in _maps_alike(self.bpffs, self.build):
            was, now = old.counted_policies(), self.maps.counted_policies()
            same = {POLICY_ID.pack(each) for each, row in now.items() if row.is_same_policy(was.get(each))}
            _copy(old, self.maps, "counters", same)
            _copy(old, self.maps, "affinity")
            old.close()

    def attached_hooks(self) -> list[str]:
        """Hooks at which this build's program is attached now."""
        infos = {hook: (libbpf.LinkInfo(link), program_id) for hook, (link, program_id) in self._links.items()}
        return [
            hook for hook, (info, program) in sorted(infos.items()) if info.cgroup_id and info.program_id == program
        ]

    def programs_before_us(self) -> dict[str, list[str]]:
        """Hook -> foreign programs that run before ours, and may translate an address before we see it.

        Told by their ids: to open a program by its id, for its name, takes CAP_SYS_ADMIN, which we don't have.
        """
        before = {}
        ours = {row["hook"]: row["program_id"] for row in programs(self.bpffs)}
        with _opened_directory(self.cgroup) as cgroup:
            for hook, attach_type in HOOKS.items():
                ids = libbpf.effective_programs(cgroup, attach_type)
                if ours.get(hook) in ids:
                    earlier = ids[: ids.index(ours[hook])]
                    former = self._linked_programs() if earlier else set()
                    foreign = [f"program {identifier}" for identifier in earlier if identifier not in former]
                    if foreign:
                        before[hook] = foreign
        return before

    def _linked_programs(self) -> set[int]:
        """Ids of all programs that our links hold, those of former builds as well."""
        found = set()
        for path in (self.bpffs / pins.LINKS).iterdir():
            with _opened_pin(path) as link:
                found.add(libbpf.LinkInfo(link).program_id)
        return found

    def warnings(self) -> list[str]:
        """What keeps calls from being redirected although all is well with us, with the remedy."""
        return coverage_faults(self.cgroup)

    def lease_age_seconds(self) -> float:
        """Seconds since the lease was renewed."""
        return (time.monotonic_ns() - self.maps.lease_renewed_ns()) / 1e9

    def close(self) -> None:
        """Lets another agent take over; everything stays pinned and attached."""
        for link, _ in self._links.values():
            os.close(link)
        self._links.clear()
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
        _introduce_policies(settings.bpffs, build)
        _tell_lost_lease(settings)
    _exempt_agent(settings.bpffs)
    datapath = Datapath(bpffs=settings.bpffs, build=build, cgroup=cgroup, lock=lock)
    for warning in datapath.warnings():
        _log.warning("%s", warning)
    return datapath


def _load(bpffs: Path, build: str, sizes: MapSizes) -> None:
    loading = bpffs / pins.LOADING
    loading.mkdir()
    (loading / (pins.LAYOUT + rows_layout())).mkdir()
    (loading / (pins.SOCKETS + sockets_layout())).mkdir()
    sockets = bpffs / (pins.SOCKETS + sockets_layout())
    sockets.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "bpf.loader", str(loading), str(sockets), *map(str, sizes)]
    result = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        pins.remove_build(loading)
        lines = (result.stderr + result.stdout).strip().splitlines() or ["no output"]
        raise DatapathError("the programs could not be compiled or loaded:\n" + "\n".join(lines[-25:]))
    loading.rename(bpffs / build)


def _exempt_agent(bpffs: Path) -> None:
    """Tells the programs of every build who we are (P17): those of a former build are attached until ours are, and may
    redirect the API server's own address."""
    own = own_cgroup(find_cgroup("auto"))
    if own is None:
        _log.warning(
            "the agent's own cgroup was not found below the cgroup2 mounts, so its own calls are redirected like those "
            "of others; mount the node's cgroups into its container, and name the API server's address in no policy"
        )
    for build in pins.builds(bpffs):
        pin = bpffs / build / "maps" / "agent_cgroup"
        if pins.is_pin(pin):  # an older version has none
            row = libbpf.Map(pin)
            row.update(bytes(4), (own or 0).to_bytes(8, sys.byteorder))
            row.close()


def _introduce_policies(bpffs: Path, build: str) -> None:
    """A new build begins with the counters of the one that it will replace, and knows whose they are."""
    new = PinnedMaps(bpffs / build / "maps")
    for old in _maps_alike(bpffs, build):
        for name in ("counters", "policies"):
            _copy(old, new, name)
        old.close()
    new.close()


def _maps_alike(bpffs: Path, build: str) -> Iterator[PinnedMaps]:
    """Of other builds, whose rows look like this one's."""
    for other in pins.builds(bpffs):
        if other != build and (bpffs / other / (pins.LAYOUT + rows_layout())).exists():
            yield PinnedMaps(bpffs / other / "maps")


def _copy(old: PinnedMaps, new: PinnedMaps, name: str, keys: Container[bytes] | None = None) -> None:
    """Rows of one map; of all keys, if none are named."""
    for key, value in old[name].items():
        if keys is None or key in keys:
            try:
                new[name].update(key, value)
            except OSError as error:
                _log.warning("%s rows of the former build are lost in part: %s", name, error)
                return


def _tell_lost_lease(settings: DatapathSettings) -> None:
    """Says so when the attached build lost its lease while ours was compiled.

    We don't renew it meanwhile: a lease says that somebody watches the Pods, and nobody does before the actors run. A
    call that takes the normal way is what everyone has without us; one that goes to a Pod which is gone is lost.
    """
    for build in {str(row["build"]) for row in programs(settings.bpffs) if row["attached"] and row["build"]}:
        lease = libbpf.Map(settings.bpffs / build / "maps" / "lease")  # a build may have other maps than ours
        age = (time.monotonic_ns() - int.from_bytes(lease.lookup(bytes(4)) or bytes(8), "little")) / 1e9
        lease.close()
        if 0 < settings.lease_seconds < age:
            _log.warning(
                "the attached build %s lost its lease while this build was compiled: it was renewed %.0f s ago, and "
                "datapath.lease_seconds is %d; calls take the normal way until this agent knows the node's Pods. A "
                "larger lease_seconds avoids that on a node that compiles slowly",
                build,
                age,
                settings.lease_seconds,
            )


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
        for path in (links / hook, *_formers(links / hook)):
            if pins.is_pin(path):
                with _opened_pin(path) as link:
                    libbpf.link_detach(link)  # also where a running agent holds it open
                path.unlink()
                removed.append(f"link {path.name}")
    for build in [*pins.builds(bpffs), pins.LOADING]:
        removed += [
            f"{path.parent.name.removesuffix('s')} {path.name} of build {build}"
            for path in pins.remove_build(bpffs / build)
        ]
    removed += [f"map {path.relative_to(bpffs)}" for path in pins.remove_sockets(bpffs)]
    pins.remove_directory(bpffs)
    return removed


def _former(link: Path, layout: str, cgroup_id: int) -> Path:
    """Where a link that is replaced is kept. A bpffs takes no dots in names."""
    return link.with_name(f"{link.name}-former-{layout}-{cgroup_id:x}")


def _formers(link: Path) -> list[Path]:
    """Those kept of this hook, by this build or an earlier one, which named them otherwise."""
    return sorted(link.parent.glob(f"{link.name}-former*"))


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
