"""Lets this machine run programs of another architecture, each in an emulator, as container builds for it need."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.processes import run

_EMULATORS = {"arm64": "qemu-aarch64"}
"""Architecture -> the file that qemu-user-static has for it in /usr/lib/binfmt.d."""


@contextlib.contextmanager
def runs_programs_of(architecture: str) -> Iterator[None]:
    """Registers the emulator with the kernel (Documentation/admin-guide/binfmt-misc.rst). By the flags in the file the
    kernel opens the emulator now, so that it need not exist in a container."""
    emulator = _EMULATORS[architecture]
    rule = Path(f"/usr/lib/binfmt.d/{emulator}.conf").read_text().strip()
    with tempfile.TemporaryDirectory() as mounted:
        run("mount", "-t", "binfmt_misc", "none", mounted)
        # The file system is the same wherever it is mounted, and the machine may have registered the emulator itself.
        name = f"{emulator}-{os.getpid()}"
        try:
            Path(mounted, "register").write_text(rule.replace(f":{emulator}:", f":{name}:", 1))
            try:
                yield
            finally:
                Path(mounted, name).write_text("-1")  # removes it
        finally:
            run("umount", mounted)
