"""Fails if the kernel tests cannot run on this machine, and says why. Prints nothing if they can."""

from __future__ import annotations

import os
from pathlib import Path

from bpf.lifecycle.kernel_features import missing_features
from tests.obstacles import exit_if_any


def obstacles() -> list[str]:
    if os.geteuid() != 0:
        return ["they need root (real hooks, cgroups and network namespaces): sudo make kernel"]
    mounted = {line.split()[2] for line in Path("/proc/self/mounts").read_text().splitlines()}
    found = []
    if "cgroup2" not in mounted:
        found.append("no cgroup v2 is mounted (mount -t cgroup2 none /sys/fs/cgroup)")
    return found + [f"the kernel lacks {feature}" for feature in missing_features()]


if __name__ == "__main__":
    exit_if_any(obstacles(), "kernel tests")
