"""The runner itself: the effects of a command stay in the virtual machine, and nothing outlives the runner."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.kernels import debian
from tests.kernels.vm import ROOT, VirtualMachine, VirtualMachineError
from tests.lab.processes import wait_until

SECONDS = 300.0


def test_a_command_gives_back_its_output_and_status_and_what_it_writes_stays_in_the_vm() -> None:
    with tempfile.TemporaryDirectory(dir=ROOT) as directory:
        with VirtualMachine(debian.fetch("6.1")) as vm:
            script = f"uname -r; pwd; echo fault >&2; touch {directory}/written; ls {directory}; exit 7"
            result = vm.run(["bash", "-c", script], seconds=SECONDS)
            assert result.status == 7
            release, *others = result.stdout.splitlines()
            assert release.startswith("6.1.")
            assert others == [str(ROOT), "written"]
            assert result.stderr == "fault\n"
            assert vm.run(["no-such-command"], seconds=SECONDS).status == 127
            with pytest.raises(VirtualMachineError, match=r"6\.1\.\S+ was ended after 1 s"):
                vm.run(["sleep", "infinity"], seconds=1)
        assert list(Path(directory).iterdir()) == []


def test_a_runner_that_is_killed_leaves_no_process_and_no_mount() -> None:
    command = [sys.executable, "-m", "tests.kernels", "amd64", "6.1", "bash", "-c", "echo running; sleep infinity"]
    runner = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert runner.stdout
    assert runner.stdout.readline() == "running\n"
    started = descendants(runner.pid)
    assert {Path(f"/proc/{pid}/comm").read_text() for pid in started} >= {"qemu-system-x86\n", "virtiofsd\n"}
    runner.kill()
    runner.wait()
    runner.stdout.close()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), "all processes are gone")
    assert str(debian.CACHE) not in Path("/proc/self/mountinfo").read_text()


def descendants(pid: int) -> list[int]:
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return children + [each for child in children for each in descendants(child)]


def test_a_kernel_that_does_not_exist_is_refused_and_the_existing_ones_are_named() -> None:
    result = refused("amd64", "5.15", "true")
    assert re.search(r"no kernel of Debian's fits '5\.15'; there are: .*6\.1, .*6\.12.* or newest", result)


def test_an_architecture_that_has_no_kernels_here_is_refused_and_the_others_are_named() -> None:
    assert refused("riscv64", "6.12", "true") == "ARCH is riscv64; it must be one of amd64, arm64\n"


def refused(*arguments: str) -> str:
    """What `tests.kernels` says before it fails."""
    command = [sys.executable, "-m", "tests.kernels", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 125
    return result.stderr


NAMES = [
    "5.10.0-46-amd64",
    "6.1.0-9-amd64",
    "6.1.0-0.deb11.52-amd64",
    "6.1.0-56-amd64",
    "6.1.0-57-cloud-amd64",
    "6.12.118+deb13-amd64",
    "6.12.9+deb13-amd64",
    "7.2~rc4-amd64",
    "7.2.13+deb14-amd64",
    "7.2.13+deb14-rt-amd64",
]


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("6.1", "6.1.0-56-amd64"),
        ("6.12", "6.12.118+deb13-amd64"),
        ("6", "6.12.118+deb13-amd64"),
        ("6.1-cloud", "6.1.0-57-cloud-amd64"),
        ("newest", "7.2.13+deb14-amd64"),
        ("newest-rt", "7.2.13+deb14-rt-amd64"),
        ("6.1.0-9-amd64", "6.1.0-9-amd64"),
        ("5.15", None),
        ("6.1-nonsense", None),
    ],
)
def test_the_newest_kernel_that_fits_is_chosen(wanted: str, name: str | None) -> None:
    assert debian.choose(wanted, NAMES) == name
