"""Kernels to test on: Debian's packages, fetched by apt with lists of its own and unpacked below `.kernels`.

Nothing is installed, and the machine's own package lists stay as they are.
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
_ARCHITECTURE = "amd64"
_SUITES = ("bullseye", "bookworm", "trixie", "sid")
_MIRROR = "http://deb.debian.org/debian"
_SECURITY_MIRROR = "http://deb.debian.org/debian-security"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_LISTS_LAST_SECONDS = 24 * 3600
_FLAVOURS = ("cloud", "rt")


class NoSuchKernel(Exception):
    """No kernel fits what was asked for, or it could not be fetched; the text says what there is."""


def choose(wanted: str, names: list[str]) -> str | None:
    """The newest of `names` (6.1.0-56-amd64) that fits: `newest`, the beginning of a version (6.1), one with a flavour
    (6.1-cloud), or a whole name."""
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
    return next((each for each in _FLAVOURS if name.endswith(f"-{each}-{_ARCHITECTURE}")), "")


def _is_version(name: str, version: str) -> bool:
    return re.match(re.escape(version) + r"(?![0-9])", name) is not None


def _sort_key(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name.removesuffix(_ARCHITECTURE))]


def fetch(wanted: str) -> Path:
    """Directory of the kernel: `vmlinuz` and `lib/modules/NAME`, where NAME is the directory's own name."""
    names = served()
    name = choose(wanted, names)
    if not name:
        summary = ", ".join(sorted({_short(each) for each in names}, key=_sort_key))
        msg = f"no kernel of Debian's fits '{wanted}'; there are: {summary}, or {NEWEST}"
        raise NoSuchKernel(msg)
    directory = CACHE / "kernels" / name
    with _only_us():
        if not directory.exists():
            _unpack(name, directory)
    return directory


def served() -> list[str]:
    """Names of all kernels that Debian's mirror has, and of those that are here already."""
    here = [path.name for path in (CACHE / "kernels").glob(f"*-{_ARCHITECTURE}")]
    try:
        with _only_us():
            _refresh_lists()
    except NoSuchKernel as error:  # without a network, or a suite that has moved: the others will do
        print(f"not all of Debian's package lists are new: {error}", file=sys.stderr)
    text = _apt("apt-cache", "search", "--names-only", rf"^linux-image-[0-9].*-{_ARCHITECTURE}$")
    found = re.findall(r"^linux-image-(\d+\.\d+\.\d\S*) ", text, re.MULTILINE)  # not those that name no whole version
    return sorted({*here, *found})


def _short(name: str) -> str:
    match = re.match(r"\d+\.\d+", name)
    assert match
    flavour = _flavour_of(name)
    return f"{match[0]}-{flavour}" if flavour else match[0]


def _apt(tool: str, *arguments: str, cwd: Path | None = None) -> str:
    """Runs apt-get or apt-cache on lists of our own; its output."""
    places = {
        "Dir::Etc::sourcelist": CACHE / "apt" / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": CACHE / "apt" / "lists",
        "Dir::State::status": CACHE / "apt" / "status",
        "Dir::Cache": CACHE / "apt" / "cache",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    options = [f"--option={name}={value}" for name, value in places.items()]
    result = subprocess.run([tool, *options, *arguments], capture_output=True, text=True, check=False, cwd=cwd)
    if result.returncode:
        msg = f"{tool} {' '.join(arguments)}: {result.stderr.strip() or result.stdout.strip()}"
        raise NoSuchKernel(msg)
    return result.stdout


@contextmanager
def _only_us() -> Iterator[None]:
    """Two processes that start their VMs at once share the lists and the kernels, and apt allows one at a time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _refresh_lists() -> None:
    fresh = CACHE / "apt" / "fresh"
    if fresh.exists() and time.time() - fresh.stat().st_mtime < _LISTS_LAST_SECONDS:
        return
    for directory in ("lists/partial", "cache/archives/partial"):
        (CACHE / "apt" / directory).mkdir(parents=True, exist_ok=True)
    (CACHE / "apt" / "status").touch()
    lines = [f"deb [signed-by={_KEYRING}] {_MIRROR} {suite} main" for suite in _SUITES]
    lines += [f"deb [signed-by={_KEYRING}] {_SECURITY_MIRROR} {suite}-security main" for suite in _SUITES[:-1]]
    (CACHE / "apt" / "sources.list").write_text("\n".join(lines) + "\n")
    _apt("apt-get", "--quiet", "--error-on=any", "update")
    fresh.touch()


def _unpack(name: str, directory: Path) -> None:
    work = directory.with_name(f"{name}.new")
    shutil.rmtree(work, ignore_errors=True)
    (work / "tree").mkdir(parents=True)
    # Newer kernels come in several packages, on which the one with the kernel's name depends.
    control = _apt("apt-cache", "show", "--no-all-versions", f"linux-image-{name}")
    depends = "".join(re.findall(r"^Depends: .*$", control, re.MULTILINE))
    parts = re.findall(rf"linux-(?:binary|modules|base)-[^ ,]*-{_ARCHITECTURE}", depends)
    _apt("apt-get", "--quiet", "download", f"linux-image-{name}", *parts, cwd=work)
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
