"""The root file system of a virtual machine with another architecture than this machine's, below `.kernels`.

It is the agent's image for that architecture, with what the laboratory needs installed on top.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from tests.cluster import images
from tests.cluster.binaries import ROOT, forget_old, locked, new_folder
from tests.cluster.ready import AGENT, DOCKERFILE
from tests.kernels import debian
from tests.kernels.emulation import runs_programs_of

FOLDER = debian.CACHE / "roots"
KEPT_ROOTS = 2
_LABORATORY = Path(__file__).with_name("Dockerfile")
_CONTEXT = ROOT / "tests"


class Root(NamedTuple):
    files: Path
    venv: Path
    """What the VM has in place of the checkout's `.venv`."""


def build(architecture: str) -> Root:
    """Builds it if it does not exist, which takes many minutes, since the programs of the build are emulated."""
    tag = f"{AGENT}-{architecture}"
    with runs_programs_of(architecture):
        archive = images.build(DOCKERFILE, tag, architecture=architecture)
        copied = (_CONTEXT / "requirements.txt").read_bytes()
        digest = hashlib.sha256(archive.name.encode() + _LABORATORY.read_bytes() + copied).hexdigest()
        target = FOLDER / digest[:16]
        with locked(FOLDER):
            if not target.exists():
                with new_folder(target) as unfinished:
                    _make_venv(unfinished / "venv")
                    images.unpack(
                        _LABORATORY,
                        _CONTEXT,
                        unfinished / "files",
                        tag=tag,
                        archive=archive,
                        architecture=architecture,
                    )
            target.touch()
            forget_old(FOLDER, KEPT_ROOTS)
    return Root(target / "files", target / "venv")


def _make_venv(venv: Path) -> None:
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to("/usr/bin/python3")
    (venv / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = true\n")
