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


LOADING = [
    "tests/kernel/test_verifier.py::test_a_program_loads_with_only_these_rights",
    "tests/kernel/test_verifier.py::test_root_loads_all_programs",
]
BESIDE_ANOTHER_PROGRAM = [
    "tests/kernel/test_neighbours.py::test_ours_stays_first_when_another_program_comes_later",
    "tests/kernel/test_neighbours.py::test_an_agent_that_starts_beside_another_program_goes_first_or_reports_that_program",
    "tests/kernel/test_neighbours.py::test_a_program_is_later_put_before_ours_only_where_the_kernel_can_and_is_then_reported",
]
SOCKETS_KEEP_THEIR_BACKEND = [
    "tests/kernel/test_sockets.py::test_an_unconnected_socket_sends_everything_to_one_backend",
    "tests/kernel/test_sockets.py::test_connect_and_sendto_the_same_frontend_reach_one_backend",
    "tests/kernel/test_sockets.py::test_two_threads_that_send_the_first_datagrams_at_once_reach_one_backend",
]
CHOSEN = {
    OLDEST: [*LOADING, *BESIDE_ANOTHER_PROGRAM, *SOCKETS_KEEP_THEIR_BACKEND],
    "6.12": LOADING,
    debian.NEWEST: [*LOADING, *BESIDE_ANOTHER_PROGRAM],
}
"""Kernel -> the tests in tests/kernel that run on it. They are few, because each takes minutes in an emulated machine.
The oldest kernel has the strictest verifier, and no way to put our programs before another one."""


@pytest.mark.parametrize(("vm", "tests"), CHOSEN.items(), ids=CHOSEN, indirect=["vm"])
def test_the_chosen_kernel_tests_pass(vm: VirtualMachine, tests: list[str]) -> None:
    """They share one process and one agent, because an emulated machine takes half a minute to compile the programs."""
    plugins = ["--disable-plugin-autoload", "-p", "pytest_timeout", "-p", "tests.no_skips"]
    run(vm, PYTHON, "-m", "pytest", "-qx", "--one-agent", *plugins, *tests)


def test_the_demo_shows_what_it_should(vm: VirtualMachine) -> None:
    assert "Every step showed what it should." in run(vm, PYTHON, "-m", "tests.demo").stdout


def test_a_kernel_that_is_too_old_is_refused_by_name() -> None:
    agent = f"mkdir -p /etc/balancing/manifests && SOURCE_KIND=directory NODE_NAME=node {PYTHON} run.py"
    with VirtualMachine(debian.fetch("5.10")) as vm:
        result = vm.run(["bash", "-c", agent], seconds=SECONDS)
    assert result.status == 1, result
    assert "kernel 5.15 or newer (this is 5.10." in result.stderr
