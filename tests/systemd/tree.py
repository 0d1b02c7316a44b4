"""The root file system of a node: Debian 13 with systemd, containerd and what a kubelet needs, made by debootstrap.

It is made once, below `.cluster`. Virtual machines share it, and keep in memory whatever they write.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from tests.cluster.binaries import CACHE, forget_old, locked, new_folder
from tests.cluster.debootstrap import bootstrap
from tests.cluster.images import NATIVE
from tests.cluster.progress import step

FOLDER = CACHE / "systemd"
SUITE = "trixie"
KEPT_TREES = 2
PACKAGES = (
    "systemd", "dbus", "kmod", "mount", "procps", "iproute2",  # a machine
    "containerd", "runc", "containernetworking-plugins",  # a node
    "nftables", "iptables", "ipset", "conntrack", "ca-certificates",  # what the kubelet and kube-proxy call
    "apparmor",  # with its parser, containerd gives containers a profile
    "python3-minimal", "libpython3-stdlib", "busybox-static", "bpftool",  # what tests call
)  # fmt: skip
GUEST = Path(__file__).with_name("guest.service")
UNUSED = (
    "apparmor.service",  # profiles for programs of the machine itself
    "serial-getty@ttyS0.service",
    "modprobe@drm.service",
    "systemd-binfmt.service",
)
"""Units that an emulated machine takes seconds for, and nobody needs here."""
MACHINE_ID = "6c6f63616c7265646972656374000001"


def tree() -> Path:
    """The directory. It is built if it does not exist, which takes minutes."""
    digest = hashlib.sha256(Path(__file__).read_bytes() + GUEST.read_bytes()).hexdigest()
    target = FOLDER / digest[:16]
    with locked(FOLDER):
        if not target.exists():
            with step("bootstrapping Debian 13 for a machine (minutes)"), new_folder(target) as unfinished:
                bootstrap(unfinished, SUITE, ",".join(PACKAGES), NATIVE)
                _set_up(unfinished)
        target.touch()
        forget_old(FOLDER, KEPT_TREES)
    return target


def _set_up(root: Path) -> None:
    root.chmod(0o755)
    units = root / "etc" / "systemd" / "system"
    wanted = units / "multi-user.target.wants"
    # The node's own services start when their configuration is there. Of the others none is needed.
    for folder in units.glob("*.wants"):
        shutil.rmtree(folder)
    wanted.mkdir()
    shutil.copy(GUEST, units)
    (wanted / GUEST.name).symlink_to(f"../{GUEST.name}")
    for name in UNUSED:
        (units / name).symlink_to("/dev/null")
    # With a machine id, and with marks that are as new as /usr, this is no first boot.
    (root / "etc" / "machine-id").write_text(f"{MACHINE_ID}\n")
    for name in ("etc", "var"):
        (root / name / ".updated").touch()
