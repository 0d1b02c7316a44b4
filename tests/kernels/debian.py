"""Kernels to test on: Debian's packages, which apt fetches and we unpack below `.kernels`.

Apt uses package lists of our own, for each architecture. Nothing is installed, and the machine's own lists stay as they
are.
"""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / ".kernels"
NEWEST = "newest"
ARCHITECTURES = ("amd64", "arm64")
"""As Debian calls them; the first is this machine's."""
_SUITES = ("bullseye", "bookworm", "trixie", "sid")
_MIRROR = "http://deb.debian.org/debian"
_SECURITY_MIRROR = "http://deb.debian.org/debian-security"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_LISTS_LAST_SECONDS = 24 * 3600
_FLAVOURS = ("cloud", "rt")


class NoSuchKernel(Exception):
    """No kernel fits the request, or it could not be fetched. The text says which ones exist."""


def choose(wanted: str, names: list[str]) -> str | None:
    """The newest of `names` (such as 6.1.0-56-amd64), all of one architecture, that fits `wanted`, or None. `wanted` is
    `newest`, the beginning of a version (6.1), the same with a flavour (6.1-cloud), or a whole name."""
    if wanted in names:
        return wanted
    version, _, flavour = wanted.partition("-")
    fitting = [
        name
        for name in names
        if _flavour_of(name) == flavour and (version == NEWEST or _is_version(name, version)) and "rc" not in name
    ]
    return max(fitting, key=_sort_key, default=None)


def _flavour_of(name: str) -> str:
    return next((each for each in _FLAVOURS if f"-{each}-" in name), "")


def _is_version(name: str, version: str) -> bool:
    return re.match(re.escape(version) + r"(?![0-9])", name) is not None


def _sort_key(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name.rpartition("-")[0])]


def fetch(wanted: str, architecture: str = ARCHITECTURES[0]) -> Path:
    """Returns the kernel's directory, which has `vmlinuz` and `lib/modules/NAME`; NAME is the directory's own name."""
    names = served(architecture)
    name = choose(wanted, names)
    if not name:
        summary = ", ".join(sorted({_short(each) for each in names}, key=_sort_key))
        msg = f"no kernel of Debian's fits '{wanted}'; there are: {summary}, or {NEWEST}"
        raise NoSuchKernel(msg)
    directory = CACHE / "kernels" / name
    with _lock():
        if not directory.exists():
            _unpack(name, directory, architecture)
    return directory


def served(architecture: str = ARCHITECTURES[0]) -> list[str]:
    """Names of all kernels that Debian's mirror has, and of those that were fetched before."""
    here = [path.name for path in (CACHE / "kernels").glob(f"*-{architecture}")]
    try:
        with _lock():
            _refresh_lists(architecture)
    except NoSuchKernel as error:  # no network, or a suite has moved; use what is here
        print(f"some of Debian's package lists could not be refreshed: {error}", file=sys.stderr)
    text = _apt(architecture, "apt-cache", "search", "--names-only", rf"^linux-image-[0-9].*-{architecture}$")
    found = re.findall(r"^linux-image-(\d+\.\d+\.\d\S*) ", text, re.MULTILINE)  # skip names without a full version
    return sorted({*here, *found})


def _short(name: str) -> str:
    match = re.match(r"\d+\.\d+", name)
    assert match
    flavour = _flavour_of(name)
    return f"{match[0]}-{flavour}" if flavour else match[0]


def _apt(architecture: str, tool: str, *arguments: str, cwd: Path | None = None) -> str:
    """Runs apt-get or apt-cache with lists of our own. Returns its output. Raises NoSuchKernel."""
    home = _apt_home(architecture)
    places = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "Dir::Etc::sourcelist": home / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": home / "lists",
        "Dir::State::status": home / "status",
        "Dir::Cache": home / "cache",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    options = [f"--option={name}={value}" for name, value in places.items()]
    result = subprocess.run([tool, *options, *arguments], capture_output=True, text=True, check=False, cwd=cwd)
    if result.returncode:
        msg = f"{tool} {' '.join(arguments)}: {result.stderr.strip() or result.stdout.strip()}"
        raise NoSuchKernel(msg)
    return result.stdout


def _apt_home(architecture: str) -> Path:
    return CACHE / "apt" / architecture


@contextmanager
def _lock() -> Iterator[None]:
    """Holds a lock. Two processes that start VMs share the lists and the kernels, and apt allows one user at a time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _refresh_lists(architecture: str) -> None:
    home = _apt_home(architecture)
    fresh = home / "fresh"
    if fresh.exists() and time.time() - fresh.stat().st_mtime < _LISTS_LAST_SECONDS:
        return
    for directory in ("lists/partial", "cache/archives/partial"):
        (home / directory).mkdir(parents=True, exist_ok=True)
    (home / "status").touch()
    lines = [f"deb [signed-by={_KEYRING}] {_MIRROR} {suite} main" for suite in _SUITES]
    lines += [f"deb [signed-by={_KEYRING}] {_SECURITY_MIRROR} {suite}-security main" for suite in _SUITES[:-1]]
    (home / "sources.list").write_text("\n".join(lines) + "\n")
    _apt(architecture, "apt-get", "--quiet", "--error-on=any", "update")
    fresh.touch()


def _unpack(name: str, directory: Path, architecture: str) -> None:
    work = directory.with_name(f"{name}.new")
    shutil.rmtree(work, ignore_errors=True)
    (work / "tree").mkdir(parents=True)
    # A newer kernel comes in several packages. The one with the kernel's name depends on the others.
    control = _apt(architecture, "apt-cache", "show", "--no-all-versions", f"linux-image-{name}")
    depends = "".join(re.findall(r"^Depends: .*$", control, re.MULTILINE))
    parts = re.findall(rf"linux-(?:binary|modules|base)-[^ ,]*-{architecture}", depends)
    _apt(architecture, "apt-get", "--quiet", "download", f"linux-image-{name}", *parts, cwd=work)
    for package in work.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, work / "tree"], check=True)
        package.unlink()
    (work / "lib").mkdir()
    next(path for path in (work / "tree").glob("**/lib/modules") if path.is_dir()).rename(work / "lib" / "modules")
    image = next(path for top in ("tree/boot", "lib/modules") for path in sorted((work / top).glob("**/vmlinuz*")))
    shutil.copy(image, work / "vmlinuz")
    shutil.rmtree(work / "tree")
    subprocess.run(["depmod", "--basedir", work, name], check=True)
    work.rename(directory)
