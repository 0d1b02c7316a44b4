"""What we promise for other kernels than this machine's (docs/compatibility.md has the results)."""

from __future__ import annotations

import pytest

from tests.kernels import debian
from tests.kernels.conftest import OLDEST
from tests.kernels.vm import Result, VirtualMachine

PYTHON = ".venv/bin/python"
SECONDS = 1200.0


def run(vm: VirtualMachine, *command: str) -> Result:
    result = vm.run(list(command), seconds=SECONDS)
    assert result.status == 0, f"{' '.join(command)} ended with {result.status}:\n{result.stdout}\n{result.stderr}"
    return result


def kernel_tests(vm: VirtualMachine, *arguments: str) -> None:
    timeout = 60 * vm.slowness  # for each test, as in pyproject.toml
    run(vm, PYTHON, "-m", "pytest", "-qx", "-p", "tests.no_skips", f"--timeout={timeout:g}", *arguments)


def on(*names: str) -> pytest.MarkDecorator:
    """Runs a test on these kernels only, since each takes minutes in an emulated machine.
    The oldest kernel has the strictest verifier, and no way to put our programs before another one."""
    params = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in names]
    return pytest.mark.parametrize("vm", params, indirect=True)


def test_every_hook_loads_with_the_rights_of_the_container(vm: VirtualMachine) -> None:
    kernel_tests(vm, "tests/kernel/test_verifier.py", "-k", "loads_with_only_these_rights")


def test_every_hook_loads_as_root(vm: VirtualMachine) -> None:
    kernel_tests(vm, "tests/kernel/test_verifier.py", "-k", "root_loads")


@on(OLDEST, debian.NEWEST)
def test_the_agent_goes_first_or_reports_the_program_before_it(vm: VirtualMachine) -> None:
    kernel_tests(vm, "tests/kernel/test_neighbours.py")


def test_the_demo_shows_what_it_should(vm: VirtualMachine) -> None:
    assert "Every step showed what it should." in run(vm, PYTHON, "-m", "tests.demo").stdout


@on(OLDEST)
def test_sockets_keep_their_backend(vm: VirtualMachine) -> None:
    kernel_tests(vm, "tests/kernel/test_sockets.py", "-k", "one_backend")


def test_a_kernel_that_is_too_old_is_refused_by_name() -> None:
    agent = f"mkdir -p /etc/balancing/manifests && SOURCE_KIND=directory NODE_NAME=node {PYTHON} run.py"
    with VirtualMachine(debian.fetch("5.10")) as vm:
        result = vm.run(["bash", "-c", agent], seconds=SECONDS)
    assert result.status == 1, result
    assert "kernel 5.15 or newer (this is 5.10." in result.stderr
