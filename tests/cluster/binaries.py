"""The programs of the test bed, built from the sources in this folder when those have changed.

Each build has its own folder in `.cluster/bin`, named after a hash of its sources and build flags. So an unchanged
program is not built again, and the builds of two checkouts never mix. The first builds take minutes, since Go modules
are downloaded and compiled; after that Go's own cache makes them short.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.processes import run
from tests.cluster.progress import step

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = ROOT / ".cluster"
KUBERNETES = "v1.37.2"
OLDER = {"1.30": "v1.30.14", "1.31": "v1.31.14", "1.33": "v1.33.13"}
"""Older versions, by the names that `make versions` gives them. Only their API server and kubectl are built."""
COREDNS = "1.15.0"
HELM = "v3.22.0"
COMMANDS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")


def kubernetes(command: str) -> Path:
    """The path of one of COMMANDS. All of them are links to one binary.

    It is of the newest version, unless the environment variable KUBERNETES names one of OLDER. These have only
    `kube-apiserver` and `kubectl`. Raises LookupError for another command or version.
    """
    older = os.environ.get("KUBERNETES")
    if older:
        return _older_kubernetes(older, command)
    flags = _version_flags(KUBERNETES)

    def build(folder: Path) -> None:
        _go_build("kubernetes", folder, flags)
        _link(folder, "kubernetes", COMMANDS)

    return _built("kubernetes", HERE / "go" / "kubernetes", flags, build, "about 6 minutes the first time") / command


def _older_kubernetes(minor: str, command: str) -> Path:
    commands = ("kube-apiserver", "kubectl")
    if minor not in OLDER or command not in commands:
        msg = f"{command} of Kubernetes {minor} is not built; only {', '.join(commands)} of {', '.join(OLDER)} are"
        raise LookupError(msg)
    flags = _version_flags(OLDER[minor])

    def build(folder: Path) -> None:
        _go_build("apiserver", folder, flags, modules=f"{minor}.mod")
        _link(folder, "apiserver", commands)

    return _built(f"apiserver-{minor}", HERE / "go" / "apiserver", flags, build, "about 10 minutes") / command


def _version_flags(version: str) -> str:
    """What `kubectl version` and the API server's `/version` say, as flags of the linker."""
    major, minor, _ = version.removeprefix("v").split(".")
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in values.items())


def _link(folder: Path, binary: str, names: tuple[str, ...]) -> None:
    for name in names:
        (folder / name).symlink_to(binary)


def coredns() -> Path:
    def build(folder: Path) -> None:
        _go_build("coredns", folder, "")

    return _built("coredns", HERE / "go" / "coredns", "", build, "about 2 minutes the first time") / "coredns"


def helm() -> Path:
    flags = f"-X helm.sh/helm/v3/internal/version.version={HELM}"

    def build(folder: Path) -> None:
        _go_build("helm", folder, flags, "helm.sh/helm/v3/cmd/helm")

    return _built("helm", HERE / "go" / "helm", flags, build, "about a minute the first time") / "helm"


def lookup(libc: str) -> Path:
    """The DNS client for tests, linked statically to `musl` or dynamically to `glibc`, whose resolvers differ."""
    compiler = {"musl": ("musl-gcc", "-static"), "glibc": ("gcc",)}[libc]

    def build(folder: Path) -> None:
        _compile(compiler, HERE / "lookup" / "lookup.c", folder / "lookup")

    return _built(f"lookup-{libc}", HERE / "lookup", " ".join(compiler), build) / "lookup"


def openloop() -> Path:
    """The load: lookups at a constant rate, whatever the answers are. Linked statically."""

    def build(folder: Path) -> None:
        _compile(("musl-gcc", "-static"), HERE / "lookup" / "openloop.c", folder / "openloop")

    return _built("openloop", HERE / "lookup", "musl", build) / "openloop"


def pause() -> Path:
    """The first process of every Pod, which holds its namespaces."""

    def build(folder: Path) -> None:
        _compile(("musl-gcc", "-static"), HERE / "pause" / "pause.c", folder / "pause")

    return _built("pause", HERE / "pause", "musl", build) / "pause"


def go() -> str:
    """The compiler that `make setup` installed, if the machine had none that is new enough; else the machine's."""
    ours = ROOT / ".venv" / "bin" / "go"
    return str(ours) if ours.exists() else "go"


def _go_build(name: str, folder: Path, flags: str, package: str = ".", *, modules: str = "") -> None:
    # Run with nice, since the machine has other work. Static, so that the binary runs in an image with nothing else.
    command = ["nice", go(), "build", "-trimpath", *([f"-modfile={modules}"] if modules else [])]
    command += ["-ldflags", f"-s -w {flags}", "-o", str(folder / name), package]
    run(*command, cwd=HERE / "go" / name, environment={**os.environ, "CGO_ENABLED": "0"})


def _compile(compiler: tuple[str, ...], source: Path, target: Path) -> None:
    run(*compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(target), str(source))


def _built(name: str, sources: Path, how: str, build: Callable[[Path], None], note: str = "") -> Path:
    digest = digest_of(sources, how)
    folder = CACHE / "bin" / f"{name}-{digest}"
    if folder.exists():
        return folder
    with locked(folder.parent):
        if folder.exists():  # whoever held the lock before us has built it
            return folder
        with step(f"building {name}{f' ({note})' if note else ''}"), new_folder(folder) as unfinished:
            build(unfinished)
    return folder


def digest_of(sources: Path, how: str) -> str:
    """Sixteen hex digits of a hash over the names and contents of all files below a folder, and `how`."""
    digest = hashlib.sha256(how.encode())
    for path in sorted(path for path in sources.rglob("*") if path.is_file()):
        digest.update(f"\0{path.relative_to(sources)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lets one builder at a time work in a folder, across processes."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def forget_old(folder: Path, kept: int) -> None:
    """Removes those folders in it that are named after a digest, except for the `kept` ones that were touched last.
    Callers touch a folder whenever they use it."""
    found = sorted(folder.glob("[0-9a-f]*"), key=lambda path: path.stat().st_mtime)
    for each in found[:-kept]:
        shutil.rmtree(each)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that is renamed to `target` once it is complete."""
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=target.parent))
    try:
        yield unfinished
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
