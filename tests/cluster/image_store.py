"""What containerd makes of image archives, made once and shared by all nodes.

Importing and unpacking our images takes half a minute for each node. So one containerd does it, in a folder of
`.cluster/containerd`, and a node begins with hard links to the files of that folder. Containerd does not modify these
files: layers are the lower directories of overlays, and a file that is named after its digest does not change. The
databases do change, so each node has copies of them.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.binaries import CACHE, forget_old, locked, new_folder
from tests.cluster.processes import PRIVATE_MOUNTS, run
from tests.cluster.progress import step
from tests.cluster.sandbox import Sandbox
from tests.lab.processes import wait_until

FOLDER = CACHE / "containerd"
KEPT_STORES = 3
SECONDS = 60.0


def unpacked(archives: Sequence[Path]) -> Path:
    """A folder as containerd's root, with these images in it."""
    digest = hashlib.sha256("\0".join(sorted(path.name for path in archives)).encode()).hexdigest()
    target = FOLDER / digest[:16]
    with locked(FOLDER):
        if not target.exists():
            with step("unpacking images for several nodes"), new_folder(target) as unfinished:
                _import(archives, unfinished)
        target.touch()
        # A running Cluster has links of its own, so it needs no store. But another process may be about to copy one of
        # the last stores, or run a SystemdNode on it.
        forget_old(FOLDER, KEPT_STORES)
    return target


def copy(store: Path, target: Path) -> None:
    """Fills the empty folder `target`. It may be on another file system, which takes longer."""
    same = store.stat().st_dev == target.stat().st_dev
    run("cp", "--archive", *(["--link"] if same else []), f"{store}/.", str(target))
    for database in target.rglob("*.db"):
        database.unlink()
        shutil.copy2(store / database.relative_to(target), database)


def _import(archives: Sequence[Path], root: Path) -> None:
    sandbox = Sandbox(namespaces=False)
    try:
        sandbox.open()
        socket = sandbox.folder / "containerd.sock"
        config = sandbox.folder / "containerd.toml"
        config.write_text(f"""
version = 2
root = "{root}"
state = "{sandbox.folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "{socket}"
""")
        # Layers are unpacked on mounts.
        containerd = sandbox.daemon("containerd", *PRIVATE_MOUNTS, "containerd", "--config", config)
        ctr = ("ctr", "--address", str(socket), "--namespace", "k8s.io")

        def answers() -> bool:
            return subprocess.run([*ctr, "version"], capture_output=True, check=False).returncode == 0

        wait_until(answers, lambda: f"containerd answers\n{sandbox.logs()}", SECONDS)
        for archive in archives:
            run(*ctr, "images", "import", str(archive))
        containerd.terminate()
        containerd.wait(SECONDS)
    finally:
        sandbox.close()
