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

from tests.cluster.progress import run, step

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = ROOT / ".cluster"
KUBERNETES = "v1.37.2"
COREDNS = "1.15.0"
HELM = "v3.22.0"
COMMANDS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")


def kubernetes(command: str) -> Path:
    """The path of one of COMMANDS. All of them are links to one binary."""
    _, minor, _ = KUBERNETES.split(".")
    version = {"gitVersion": KUBERNETES, "gitMajor": "1", "gitMinor": minor}
    flags = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in version.items())

    def build(folder: Path) -> None:
        _go_build("kubernetes", folder, flags)
        for name in COMMANDS:
            (folder / name).symlink_to("kubernetes")

    return _built("kubernetes", HERE / "go" / "kubernetes", flags, build, "about 6 minutes the first time") / command


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


def _go_build(name: str, folder: Path, flags: str, package: str = ".") -> None:
    # Run with nice, since the machine has other work. Static, so that the binary runs in an image with nothing else.
    command = ["nice", go(), "build", "-trimpath", "-ldflags", f"-s -w {flags}", "-o", str(folder / name), package]
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


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that is renamed to `target` once it is complete."""
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=target.parent))
    try:
        yield unfinished
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
