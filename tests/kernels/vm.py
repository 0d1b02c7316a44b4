"""A virtual machine that runs another kernel with this machine's root file system.

    with VirtualMachine(debian.fetch("6.1")) as vm:
        vm.run(["uname", "-r"])

Whatever a command writes stays in the VM's memory. With a root file system of its own the VM boots systemd from there,
and sees this machine's files at MACHINE. Without KVM the VM is emulated, and about ten times slower than the machine;
the laboratory learns that by `LAB_SLOWNESS`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.kernels.debian import CACHE
from tests.kernels.root import Root

ROOT = Path(__file__).resolve().parents[2]
EMULATED_SLOWNESS = 10
_BOOT_SECONDS = 600
_CONSOLE_LINES = 40
MACHINE = Path("/machine")
"""Where a VM with a root of its own has this machine's files, read-only."""
_HOST_SCRIPT = Path(__file__).with_name("host.sh")


class VirtualMachineError(Exception):
    """The VM did not start, ended unexpectedly, or took too long. The text has the last lines of its console."""


@dataclass(frozen=True)
class Result:
    status: int
    stdout: str
    stderr: str


class VirtualMachine:
    """Context manager. `kernel` is a directory of tests.kernels.debian. If its architecture is not this machine's,
    `foreign` is the VM's root file system.

    `tree` is a root file system whose systemd becomes process 1, and starts tests.kernels.guest from /run/checkout.
    `shown` are further files that such a VM must see at MACHINE, wherever they are mounted. If `netns` and `tap` name a
    tap device and its network namespace, the device's other end is the VM's network card. With `own_time` the
    clock of an emulated VM slows down together with the VM, so programs in it see a fast machine. Use it where programs
    have fixed time-outs, which would otherwise run out."""

    def __init__(
        self,
        kernel: Path,
        *,
        foreign: Root | None = None,
        tree: Path | None = None,
        shown: Sequence[Path] = (),
        netns: str = "",
        tap: str = "",
        megabytes: int = 3072,
        own_time: bool = False,
    ) -> None:
        self._netns = netns
        root = foreign or Root(Path("/"), ROOT / ".venv")
        self._options = {
            "FILES": str(root.files),
            "VENV": str(root.venv),
            "TREE": str(tree or ""),
            "SHOWN": "\n".join(map(str, shown)),
            "TAP": tap,
            "MEMORY": str(megabytes),
            "OWN_TIME": "yes" if own_time else "",
        }
        self.slowness = 1 if has_kvm() and not foreign else EMULATED_SLOWNESS
        self._kernel = kernel
        # The file has no name, so that it leaves nothing behind.
        self._console = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  (closed by close)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        CACHE.mkdir(exist_ok=True)
        # Each VM has a path of its own, since virtiofsd names its lock file after the path of its socket.
        self._room = Path(tempfile.mkdtemp(prefix="room-", dir=CACHE))
        # When we end in any way, the kernel kills unshare, then process 1 of the namespace, then all others in it.
        bound_to_us = ["setpriv", "--pdeathsig=KILL"]
        if self._netns:
            bound_to_us += ["nsenter", f"--net=/run/netns/{self._netns}"]
        namespaces = ["unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self._process = subprocess.Popen(
            [*bound_to_us, *namespaces, "bash", str(_HOST_SCRIPT), str(self._kernel), str(ROOT), str(self._room)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._console,
            text=True,
            errors="replace",
            env=os.environ
            | {"VIRTIOFSD": str(find_virtiofsd()), "EMULATED": "yes" if self.slowness > 1 else ""}
            | self._options,
            start_new_session=True,
        )
        try:
            self._await("kernel", _BOOT_SECONDS, show=False)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()
        self._room.rmdir()
        for stream in (self._process.stdin, self._process.stdout, self._console):
            assert stream
            stream.close()

    def run(self, command: list[str], *, seconds: float, show: bool = False) -> Result:
        """Runs the command in the checkout, as root. With `show` its output appears here, too, as it comes."""
        assert self._process
        assert self._process.stdin
        order = {"command": command, "environment": {"LAB_SLOWNESS": str(self.slowness)}}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._await("status", seconds, show=show)

    def _await(self, what: str, seconds: float, *, show: bool) -> Result:
        """Reads the messages of the guest until one has the key `what`."""
        assert self._process
        assert self._process.stdout
        texts: dict[str, list[str]] = {"stdout": [], "stderr": []}
        timed_out = threading.Event()
        timer = threading.Timer(seconds, self._kill_on_timeout, [timed_out])
        timer.start()
        try:
            for line in self._process.stdout:
                message: dict[str, Any] = json.loads(line)
                if what in message:
                    return Result(message.get("status", 0), "".join(texts["stdout"]), "".join(texts["stderr"]))
                for name, text in message.items():
                    texts[name].append(text)
                    if show:
                        print(text, end="", flush=True, file=getattr(sys, name))
        finally:
            timer.cancel()
        self._process.wait()
        self._console.seek(0)
        lines = [*texts["stdout"], *texts["stderr"], *self._console]
        why = f"was ended after {seconds:g} s" if timed_out.is_set() else "ended unexpectedly"
        raise VirtualMachineError(f"the VM of {self._kernel.name} {why}:\n{''.join(lines[-_CONSOLE_LINES:])}")

    def _kill_on_timeout(self, timed_out: threading.Event) -> None:
        timed_out.set()
        assert self._process
        self._process.kill()


def find_virtiofsd() -> Path | None:
    """virtiofsd is in no directory of PATH."""
    places = map(Path, ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"))
    return next((path for path in places if path.exists()), None)


def has_kvm() -> bool:
    """Whether KVM can run a kernel here. Some machines have /dev/kvm although their processor has no virtualization."""
    flags = re.search(r"\b(vmx|svm)\b", Path("/proc/cpuinfo").read_text())
    return flags is not None and os.access("/dev/kvm", os.R_OK | os.W_OK)
