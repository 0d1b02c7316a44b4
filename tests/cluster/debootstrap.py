"""Root file systems of Debian, made by debootstrap."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.cluster.processes import PRIVATE_MOUNTS, run

# Without these, Debian's own `bookworm-slim` is slim.
UNNEEDED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "var/cache/apt",
    "var/lib/apt/lists",
)


def bootstrap(tree: Path, suite: str, packages: str, architecture: str) -> None:
    """Fills an empty directory. `packages` are the names of those to add to a minimal system, with commas between."""
    # debootstrap mounts /proc in the tree.
    options = ("--variant=minbase", f"--arch={architecture}", f"--include={packages}")
    run(*PRIVATE_MOUNTS, "debootstrap", *options, suite, str(tree))
    for name in UNNEEDED:
        shutil.rmtree(tree / name, ignore_errors=True)
        (tree / name).mkdir(parents=True)
    (tree / "etc/resolv.conf").unlink(missing_ok=True)
