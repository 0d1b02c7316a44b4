"""Fails if the tests on other kernels cannot run on this machine, and says why. Prints nothing if they can."""

from __future__ import annotations

import os
import platform
import shutil

from tests.kernels.vm import find_virtiofsd
from tests.obstacles import exit_if_any

_TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "cpio": "cpio",
    "modprobe": "kmod",
    "xz": "xz-utils",
    "apt-get": "apt",
}
"""Command -> the Debian package that it is in."""


def obstacles() -> list[str]:
    if os.geteuid() != 0:
        return ["they need root (mounts, and files of the whole machine): sudo make kernels-test"]
    found = []
    if platform.machine() != "x86_64":
        found.append(f"the machine is {platform.machine()}, and the kernels are for x86_64")
    found += [f"there is no {tool} (package {package})" for tool, package in _TOOLS.items() if not shutil.which(tool)]
    if not find_virtiofsd():
        found.append("there is no virtiofsd (package virtiofsd, or qemu-system-common up to Debian 12)")
    return found


if __name__ == "__main__":
    exit_if_any(obstacles(), "tests on other kernels")
