"""Fails if the tests on a node with systemd cannot run on this machine, and says why. Otherwise it builds what they
need."""

from __future__ import annotations

from pathlib import Path

from tests.cluster import images, ready
from tests.cluster.ready import AGENT, DOCKERFILE
from tests.kernels import debian
from tests.kernels import ready as kernels_ready
from tests.obstacles import exit_if_any
from tests.systemd.node import KERNEL
from tests.systemd.tree import tree

TAP = Path("/dev/net/tun")


def obstacles() -> list[str]:
    found = kernels_ready.obstacles() + ready.obstacles()
    if not TAP.exists():
        found.append(f"there is no {TAP}, which gives the virtual machine a network (modprobe tun)")
    return list(dict.fromkeys(found))


def build_all() -> list[Path]:
    """Builds everything that takes minutes the first time. Returns the archives of the node's images."""
    debian.fetch(KERNEL)
    tree()
    return [images.pause(), images.busybox(), images.build(DOCKERFILE, AGENT)]


if __name__ == "__main__":
    exit_if_any(obstacles(), "tests on a node with systemd")
    build_all()
