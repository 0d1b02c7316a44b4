"""Runs commands to their end. When one fails, the error has a note of what it wrote."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

PRIVATE_MOUNTS = ("unshare", "--mount", "--propagation=private")
"""Before a command: what it mounts is seen by nobody else, and disappears when it ends, also when it fails."""


def run(*command: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> str:
    """Returns stdout. Raises CalledProcessError, with a note of what the command wrote to both streams."""
    try:
        return subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=cwd, env=environment, stdin=subprocess.DEVNULL
        ).stdout
    except subprocess.CalledProcessError as error:
        error.add_note(f"{error.stdout[-4000:]}\n{error.stderr[-4000:]}")
        raise


def checked(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """Raises CalledProcessError if the command failed, with a note of what it wrote."""
    if done.returncode:
        error = subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
        error.add_note(f"{done.stdout}{done.stderr or ''}")
        raise error
    return done


def write_script(path: Path, command: Sequence[str]) -> Path:
    """Writes a script that runs the command with the script's own arguments added. Makes its folder, too. Returns
    `path`."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    path.chmod(0o755)
    return path
