"""Root file systems of Debian, made by debootstrap."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.cluster.progress import run

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
    # debootstrap mounts /proc in the tree. In a mount namespace of its own, that mount disappears when it ends.
    private = ("unshare", "--mount", "--propagation=private")
    options = ("--variant=minbase", f"--arch={architecture}", f"--include={packages}")
    run(*private, "debootstrap", *options, suite, str(tree))
    for name in UNNEEDED:
        shutil.rmtree(tree / name, ignore_errors=True)
        (tree / name).mkdir(parents=True)
    (tree / "etc/resolv.conf").unlink(missing_ok=True)
