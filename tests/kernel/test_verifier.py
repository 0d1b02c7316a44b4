"""What the verifier makes of the programs when it trusts them as little as in the agent's container.

Without CAP_PERFMON it has a barrier (`nospec`) follow each store to the stack, and follows branches both ways.
"""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpf import libbpf
from bpf.build import HOOKS
from tests.lab.lab import RIGHTS, ROOT, Lab

MOST_INSTRUCTIONS = 250_000
"""A quarter of what the verifier follows before it gives up: other kernels and compilers need room."""


@pytest.fixture(scope="module")
def programs(lab: Lab) -> Iterator[Path]:
    """The pinned programs, loaded with CAP_BPF and CAP_NET_ADMIN alone."""
    directory = lab.bpffs.with_name(f"{lab.prefix}-verifier")
    directory.mkdir()
    subprocess.run(
        [*RIGHTS, sys.executable, "-m", "bpf.loader", str(directory), "65536", "65536", "65536"], cwd=ROOT, check=True
    )
    yield directory / "programs"
    for pin in directory.glob("*/*"):
        pin.unlink()
    for each in (*directory.iterdir(), directory):
        each.rmdir()


def instructions(program: Path) -> list[str]:
    command = ["bpftool", "prog", "dump", "xlated", "pinned", str(program)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line.partition(": ")[2] for line in text.splitlines() if re.match(r" *\d+: ", line)]


def test_the_rights_are_those_of_the_container() -> None:
    status = subprocess.run([*RIGHTS, "cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    cap_net_admin, cap_bpf = 12, 39
    assert re.findall(r"Cap(?:Prm|Eff|Bnd):\t(\w+)", status) == [f"{1 << cap_net_admin | 1 << cap_bpf:016x}"] * 3


@pytest.mark.parametrize("hook", HOOKS)
def test_a_program_loads_with_these_rights_alone(programs: Path, hook: str) -> None:
    program = libbpf.open_pin(programs / hook)
    (followed,) = struct.unpack_from("=I", libbpf.info(program, 220), 216)  # verified_insns of struct bpf_prog_info
    os.close(program)
    assert 0 < followed < MOST_INSTRUCTIONS


@pytest.mark.parametrize("hook", HOOKS)
def test_the_stack_is_written_in_whole_words(programs: Path, hook: str) -> None:
    """Up to kernel 6.8 the verifier refuses to overwrite a part of a word."""
    stores = [line for line in instructions(programs / hook) if re.match(r"\(..\) \*\(u\d+ \*\)\(r10 ", line)]
    assert [line for line in stores if not line.startswith("(7b) *(u64 *)")] == []


@pytest.mark.parametrize("hook", [hook for hook in HOOKS if hook.startswith(("connect", "sendmsg"))])
def test_a_call_that_the_filter_stops_meets_no_barrier(programs: Path, hook: str) -> None:
    before_the_look_up = "\n".join(instructions(programs / hook)).partition(" call ")[0]
    first = before_the_look_up.index("nospec")
    assert before_the_look_up[:first].count(") if ") == 2  # port and frontend
