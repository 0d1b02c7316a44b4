"""Container images without a registry or an engine: archives that we pack ourselves, and the agent's, built by buildah.

Each image is a `docker-archive` tar in `.cluster/images`, named after a hash of what it is made from, so that it is
packed only once. `Node.load_image` loads one into a node; Pods then need `imagePullPolicy: IfNotPresent` or `Never`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.cluster import binaries
from tests.cluster.binaries import CACHE, ROOT, locked
from tests.cluster.debootstrap import UNNEEDED, bootstrap
from tests.cluster.processes import PRIVATE_MOUNTS, run
from tests.cluster.progress import step

FOLDER = CACHE / "images"
PAUSE = "localhost/pause:1"
BASE = "localhost/debian:bookworm-slim"
LOOKUP = "localhost/lookup:1"
BUSYBOX = "localhost/busybox:1"
NATIVE = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
"""This machine's architecture, as Debian and container images call it."""
COREDNS = f"registry.k8s.io/coredns/coredns:v{binaries.COREDNS}"
BASE_PACKAGES = "ca-certificates"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
EXECUTABLE = 0o755


class Layer(NamedTuple):
    """An uncompressed tar in an archive, identified by its digest."""

    path: Path
    digest: str


def pause() -> Path:
    return _packed(PAUSE, {"/pause": binaries.pause()}, ["/pause"])


def coredns() -> Path:
    """CoreDNS, under the name that is usual in manifests."""
    return _packed(COREDNS, {"/coredns": binaries.coredns()}, ["/coredns"])


def busybox() -> Path:
    """A shell, httpd, nc, wget (whose -T crashes), and the static DNS client `lookup`. It has only two megabytes, so it
    loads quickly."""
    shell = Path("/bin/busybox")
    applets = run(str(shell), "--list").split()
    links = {f"/bin/{name}": "busybox" for name in applets if name != "busybox"}
    files = {"/bin/busybox": shell, "/bin/lookup": binaries.lookup("musl")}
    return _packed(BUSYBOX, files, ["/bin/sh"], links=links)


def lookup() -> Path:
    """Debian with the DNS clients lookup-musl, lookup-glibc and openloop, in /usr/bin."""
    files = {f"/usr/bin/lookup-{libc}": binaries.lookup(libc) for libc in ("musl", "glibc")}
    files["/usr/bin/openloop"] = binaries.openloop()
    return _packed(LOOKUP, files, ["/bin/sh"], base=[_base_layer()])


def base(architecture: str = NATIVE) -> Path:
    """Debian bookworm, as a base image."""
    tag = _base_tag(architecture)
    return _packed(tag, {}, ["/bin/bash"], base=[_base_layer(architecture)], architecture=architecture)


def build(
    dockerfile: Path,
    tag: str,
    *,
    context: Path = ROOT,
    arguments: Mapping[str, str] | None = None,
    architecture: str = NATIVE,
) -> Path:
    """Builds a Dockerfile whose `BASE` argument is the base image. The context has all files that git tracks or would
    add. This machine must run programs of the architecture (tests.kernels.emulation)."""
    arguments = {"BASE": _base_tag(architecture), **(arguments or {})}
    files = _context_files(context)
    layer = _base_layer(architecture)
    digest = hashlib.sha256(f"{tag}\0{arguments}\0{layer.digest}\0".encode() + dockerfile.read_bytes())
    for name in files:
        digest.update(f"\0{name}\0".encode() + (context / name).read_bytes())
    target = FOLDER / f"{_file_name(tag)}-{digest.hexdigest()[:16]}.tar"
    if target.exists():
        return target
    from_base = base(architecture)
    with locked(CACHE / "buildah"):
        if target.exists():
            return target
        with step(f"building {tag}"), _copied(context, files) as copy:
            _buildah_pull(from_base)
            _bud(dockerfile, copy, arguments, architecture, f"--tag={tag}")
            with _unfinished(target) as path:
                _buildah("push", tag, f"docker-archive:{path}:{tag}")
            _forget_old(tag)
    return target


def unpack(dockerfile: Path, context: Path, target: Path, *, tag: str, archive: Path, architecture: str) -> None:
    """Builds a Dockerfile whose `BASE` argument is the image `tag` of an archive that `build` made. Writes the file
    system to a new directory."""
    with locked(CACHE / "buildah"), step(f"building {target.name} on {tag}"):
        _buildah_pull(archive)
        _bud(dockerfile, context, {"BASE": tag}, architecture, f"--output=type=local,dest={target}")


def _bud(dockerfile: Path, context: Path, arguments: Mapping[str, str], architecture: str, *options: str) -> None:
    mounted = [f"--volume={CERTIFICATES}:{CERTIFICATES}:ro"] if CERTIFICATES.exists() else []
    given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    shape = ["--isolation=chroot", "--network=host", "--layers", "--pull-never", f"--arch={architecture}"]
    _buildah("bud", *shape, *mounted, *given, *options, f"--file={dockerfile}", str(context))


def _forget_old(tag: str) -> None:
    """Removes old archives of this tag: they are large, and each change of the program makes another one. The last
    three stay, since another process may be loading one of them."""
    archives = sorted(FOLDER.glob(f"{_file_name(tag)}-*.tar"), key=lambda path: path.stat().st_mtime)
    for archive in archives[:-3]:
        archive.unlink(missing_ok=True)


def _context_files(context: Path) -> list[str]:
    """Leaves out the tests. No image needs them, and each change of one would rebuild the image."""
    listed = run("git", "-C", str(context), "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    return sorted(
        name for name in set(listed) if name and not name.startswith(("tests/", ".ci/")) and (context / name).is_file()
    )


@contextlib.contextmanager
def _copied(context: Path, files: Sequence[str]) -> Iterator[Path]:
    copy = CACHE / "buildah" / f"context-{os.getpid()}"
    try:
        for name in files:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(context / name, copy / name)
        yield copy
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _buildah(*arguments: str) -> None:
    """Uses a store of our own. It keeps the layers, so that a change of the program does not install the packages
    again.

    Its records of mounts are in `runroot`, which is removed together with the mounts.
    """
    store = CACHE / "buildah"
    with tempfile.TemporaryDirectory(prefix="run-", dir=store) as notes:
        options = (f"--root={store}/root", f"--runroot={notes}", "--storage-driver=overlay")
        run(*PRIVATE_MOUNTS, "buildah", *options, *arguments)


def _buildah_pull(archive: Path) -> None:
    marker = CACHE / "buildah" / f"pulled-{archive.stem}"
    if not marker.exists():
        _buildah("pull", f"docker-archive:{archive}")
        marker.touch()


def _base_tag(architecture: str) -> str:
    return BASE if architecture == NATIVE else f"{BASE}-{architecture}"


def _base_layer(architecture: str = NATIVE) -> Layer:
    recipe = f"bookworm minbase {architecture} {BASE_PACKAGES} without {UNNEEDED}"
    target = FOLDER / f"base-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.layer"
    with locked(FOLDER):
        if not target.exists():
            _bootstrap(target, architecture)
        # Hashing two hundred megabytes takes a second, so the digest is kept in a file beside it.
        digest = target.with_suffix(".digest")
        if not digest.exists():
            digest.write_text(run("sha256sum", str(target)).split()[0])
    return Layer(target, digest.read_text())


def _bootstrap(target: Path, architecture: str) -> None:
    with (
        step(f"bootstrapping Debian bookworm for {architecture} (half a minute; if emulated, minutes)"),
        tempfile.TemporaryDirectory(prefix=".debian-", dir=FOLDER) as tree,
        _unfinished(target) as path,
    ):
        bootstrap(Path(tree), "bookworm", BASE_PACKAGES, architecture)
        run("tar", "--create", f"--file={path}", "--numeric-owner", "--one-file-system", f"--directory={tree}", ".")


def _packed(
    tag: str,
    files: Mapping[str, Path],
    entrypoint: Sequence[str],
    *,
    links: Mapping[str, str] | None = None,
    base: Sequence[Layer] = (),
    architecture: str = NATIVE,
) -> Path:
    digest = hashlib.sha256(repr((tag, list(entrypoint), links, [layer.digest for layer in base])).encode())
    digest.update(Path(__file__).read_bytes())  # this file decides how it is packed
    for name, path in files.items():
        digest.update(name.encode() + path.read_bytes())
    target = FOLDER / f"{_file_name(tag)}-{digest.hexdigest()[:16]}.tar"
    if target.exists():
        return target
    with locked(FOLDER), _unfinished(target) as unfinished, tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        layers = list(base)
        if files:
            path = Path(scratch, "layer")
            _write_layer(path, files, links or {})
            layers.append(Layer(path, run("sha256sum", str(path)).split()[0]))
        _write_archive(unfinished, tag, entrypoint, layers, architecture)
    _forget_old(tag)
    return target


def _write_layer(target: Path, files: Mapping[str, Path], links: Mapping[str, str]) -> None:
    with tarfile.open(target, "w") as archive:
        if not any(name.startswith("/usr/") for name in files):  # the base layer has these already
            for folder in ("tmp", "etc", "proc", "sys", "dev", "bin"):
                entry = tarfile.TarInfo(folder)
                entry.type, entry.mode = tarfile.DIRTYPE, EXECUTABLE
                archive.addfile(entry)
        for name, path in files.items():
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.size, entry.mode = path.stat().st_size, EXECUTABLE
            with path.open("rb") as content:
                archive.addfile(entry, content)
        for name, to in links.items():
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.type, entry.linkname = tarfile.SYMTYPE, to
            archive.addfile(entry)


def _write_archive(
    target: Path, tag: str, entrypoint: Sequence[str], layers: Sequence[Layer], architecture: str
) -> None:
    config = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Entrypoint": list(entrypoint),
                "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.digest}" for layer in layers]},
            "history": [{"created_by": "tests.cluster.images"} for _ in layers],  # buildah wants one for each
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    names = [f"{layer.digest}.tar" for layer in layers]
    manifest = json.dumps([{"Config": config_name, "RepoTags": [tag], "Layers": names}]).encode()
    with tarfile.open(target, "w") as archive:
        for name, content in ((config_name, config), ("manifest.json", manifest)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for name, layer in zip(names, layers, strict=True):
            archive.add(layer.path, name)


def _file_name(tag: str) -> str:
    return tag.rpartition("/")[2].replace(":", "-")


@contextlib.contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """A temporary file that is renamed to `target` once it is complete."""
    path = target.with_name(f".unfinished-{os.getpid()}-{target.name}")
    try:
        yield path
        path.rename(target)
    finally:
        path.unlink(missing_ok=True)
