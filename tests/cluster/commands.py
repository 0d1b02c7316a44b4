"""The commands that README and docs show, run literally against a test's control plane.

`Checkout` is a copy of `k8s/` as an operator has it after cloning, with `kubectl` and `helm` on its path.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import yaml

from tests.cluster import binaries
from tests.cluster.binaries import ROOT
from tests.cluster.control_plane import ControlPlane
from tests.cluster.processes import checked, write_script

REGISTRY = "registry.test/team"
"""Replaces REGISTRY in the commands. The name does not resolve, so only images that were loaded under it can run."""
DNS_EXAMPLE = "k8s/examples/node-local-dns/README.md"
INSTALLATION = "docs/installation.md"
TROUBLESHOOTING = "docs/troubleshooting.md"


def block(document: str, words: str, language: str = "") -> str:
    """The one code block of a document that contains these words. Raises LookupError if it is not exactly one."""
    text = (ROOT / document).read_text()
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    found = [str(body) for name, body in blocks if name == language and words in body]
    if len(found) != 1:
        msg = f"{document} has {len(found)} code blocks with {words!r}"
        raise LookupError(msg)
    return found[0].replace("REGISTRY", REGISTRY)


def inline(document: str, words: str) -> str:
    """The one command within the text (`like this`) that contains these words. Raises LookupError, too."""
    spans: list[str] = re.findall(r"`([^`\n]+)`", (ROOT / document).read_text())
    found = {each for each in spans if words in each}
    if len(found) != 1:
        msg = f"{document} has {len(found)} commands with {words!r}: {found}"
        raise LookupError(msg)
    return found.pop()


def yaml_block(document: str, words: str) -> Any:
    return yaml.safe_load(block(document, words, "yaml"))


class Checkout:
    """Lives in the control plane's folder, and is removed with it."""

    def __init__(self, plane: ControlPlane) -> None:
        self.folder = plane.folder / "checkout"
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(ROOT / "k8s", self.folder / "k8s", ignore=shutil.ignore_patterns("__pycache__"))
        self._bin = self.folder / "bin"
        write_script(self._bin / "kubectl", plane.kubectl_command())
        helm = [*plane.sandbox.enter(mounts=False), str(binaries.helm()), f"--kubeconfig={plane.kubeconfig}"]
        write_script(self._bin / "helm", helm)

    def run(self, commands: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs them in a shell that exits at the first failure. `stdout` has both streams; an error has them as a
        note."""
        done = subprocess.run(
            ["bash", "-euc", commands],
            cwd=self.folder,
            env={"PATH": f"{self._bin}:/usr/bin:/bin", "HOME": str(self.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return checked(done) if check else done

    def change(self, path: str, added: Any) -> None:
        """Adds to a YAML file: keys to its mappings, entries to its lists."""
        file = self.folder / path
        file.write_text(yaml.safe_dump(_merged(yaml.safe_load(file.read_text()), added), sort_keys=False))


def _merged(there: Any, added: Any) -> Any:
    if isinstance(there, dict):
        return there | {key: _merged(there.get(key), value) for key, value in added.items()}
    return there + added if isinstance(there, list) else added
