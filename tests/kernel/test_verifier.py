"""What the verifier does with the programs when they are loaded with the rights of the agent's container.

Without CAP_PERFMON it inserts a barrier (`nospec`) after each store to the stack, and follows both sides of branches.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from bpf import libbpf
from bpf.build import FIND_REDIRECT, HOOKS
from bpf.lifecycle.kernel_features import ATOMICS, HELPERS, PACKET_HELPERS, missing_features
from bpf.maps.kernel_map import KernelMap
from bpf.maps.rows import DECIDING_HOOKS
from tests.lab.agent import RIGHTS, Agent
from tests.lab.lab import Lab
from tests.lab.processes import ROOT

SOURCES = ROOT / "bpf" / "programs"
MACROS = {"bpf_htonl", "bpf_htons", "bpf_ntohs", "bpf_ntohll", "bpf_pseudo_fd"}
"""These look like helpers, but call none."""
MAX_INSTRUCTIONS = 250_000
"""A quarter of the verifier's own limit, to leave room for other kernels and compilers."""


@pytest.fixture(scope="module")
def programs(lab: Lab, agent: Agent) -> Path:
    """The pinned programs of an agent, which has only CAP_BPF and CAP_NET_ADMIN (RIGHTS)."""
    (build,) = {row["build"] for row in agent.inspect("programs")}
    return lab.bpffs / str(build) / "programs"


def instructions(program: Path) -> list[str]:
    command = ["bpftool", "prog", "dump", "xlated", "pinned", str(program)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line.partition(": ")[2] for line in text.splitlines() if re.match(r" *\d+: ", line)]


def test_the_rights_are_those_of_the_container() -> None:
    status = subprocess.run([*RIGHTS, "cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    cap_net_admin, cap_bpf = 12, 39
    assert re.findall(r"Cap(?:Prm|Eff|Bnd):\t(\w+)", status) == [f"{1 << cap_net_admin | 1 << cap_bpf:016x}"] * 3


@pytest.mark.parametrize("name", [*HOOKS, FIND_REDIRECT])
def test_a_program_loads_with_only_these_rights(programs: Path, name: str) -> None:
    program = libbpf.open_pin(programs / name)
    (followed,) = struct.unpack_from("=I", libbpf.info(program, 220), 216)  # verified_insns of struct bpf_prog_info
    os.close(program)
    assert followed < MAX_INSTRUCTIONS  # kernel 5.15 does not count them, and reports 0


@pytest.mark.parametrize("hook", DECIDING_HOOKS)
def test_a_program_that_decides_about_calls_can_start_itself_again(programs: Path, hook: str) -> None:
    own = KernelMap(programs.with_name("maps") / f"own_program_{hook}")
    with libbpf.opened_pin(programs / hook) as program:
        assert own.lookup(bytes(4)) == libbpf.program_id(program).to_bytes(4, sys.byteorder)
    own.close()


def test_every_helper_that_the_programs_call_is_probed_at_the_start() -> None:
    text = "".join(path.read_text() for path in SOURCES.glob("*.[ch]"))
    assert set(re.findall(r"\bbpf_\w+(?=\()", text)) - MACROS == HELPERS.keys() | PACKET_HELPERS.keys()


ATOMIC_WORDS = {
    "lock *(u64 *)": "addition",
    "atomic64_fetch_add": "addition that returns the former value",
    "atomic64_cmpxchg": "comparison and exchange",
}
"""As bpftool prints the operations of ATOMICS."""


def test_every_atomic_operation_of_the_programs_is_probed_at_the_start(programs: Path) -> None:
    lines = [line for name in (*HOOKS, FIND_REDIRECT) for line in instructions(programs / name)]
    atomic = [line for line in lines if re.search("lock|atomic", line) and "call" not in line]
    found = {name for line in atomic for words, name in ATOMIC_WORDS.items() if words in line}
    assert found == ATOMICS.keys()
    assert not [line for line in atomic if not any(words in line for words in ATOMIC_WORDS)]


def test_an_atomic_operation_that_the_kernel_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ATOMICS, "negation", 0xEE)
    assert missing_features() == ["atomic negation in programs"]


def test_root_loads_all_programs(lab: Lab) -> None:
    directory = lab.bpffs.with_name(f"{lab.prefix}-root")
    for each in ("build", "sockets"):
        (directory / each).mkdir(parents=True)
    command = [sys.executable, "-m", "bpf.lifecycle.loader", str(directory / "build"), str(directory / "sockets")]
    sizes = ["65536", "65536", "65536"]
    try:
        result = subprocess.run([*command, *sizes], cwd=ROOT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        assert {path.name for path in directory.glob("build/programs/*")} == {*HOOKS, FIND_REDIRECT}
    finally:
        shutil.rmtree(directory)


WRONG_HOOK = """
import sys
from pathlib import Path
from bpf.lifecycle import loader
from bpf.build import MapSizes

loader.HOOKS = {"connect4": 30}  # getpeername6: a program for it may not read an IPv4 address
loader.load(Path(sys.argv[1]), Path(sys.argv[1]), MapSizes(10, 10, 10))
"""


def test_a_program_that_the_kernel_refuses_is_named_in_one_line_with_reason_and_remedy(lab: Lab) -> None:
    directory = lab.bpffs.with_name(f"{lab.prefix}-refused")
    directory.mkdir()
    command = [*RIGHTS, sys.executable, "-c", WRONG_HOOK, str(directory)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    shutil.rmtree(directory)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    refusal = f"kernel {os.uname().release} refuses the program connect4: invalid bpf_context access off=4 "
    assert line.startswith(refusal)
    assert "(Permission denied). Use a kernel that docs/compatibility.md names" in line


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        pytest.param(
            "R1 !read_ok\nThe sequence of 8193 jumps is too complex.\n"
            "processed 177000 insns (limit 1000000) max_states_per_insn 4 total_states 9 peak_states 9 mark_read 5\n",
            "The sequence of 8193 jumps is too complex (Bad address)",
            id="statistics come last",
        ),
        pytest.param(
            "infinite loop detected at insn 0\ncur state: R1=ctx() R10=fp0\nold state: R1=ctx() R10=fp0\n"
            "verification time 4 usec\nstack depth 0\nprocessed 2 insns (limit 1000000)\n",
            "infinite loop detected at insn 0 (Bad address)",
            id="states of registers come last",
        ),
        pytest.param("", "Bad address", id="no log"),
    ],
)
def test_the_reason_is_the_last_one_in_the_log_of_the_verifier(log: str, reason: str) -> None:
    assert libbpf.verifier_reason(log, errno.EFAULT) == reason


@pytest.mark.parametrize("name", [*HOOKS, FIND_REDIRECT])
def test_the_stack_is_written_in_whole_words(programs: Path, name: str) -> None:
    """Up to kernel 6.8 the verifier refuses to overwrite a part of a word."""
    stores = [line for line in instructions(programs / name) if re.match(r"\(..\) \*\(u\d+ \*\)\(r10 ", line)]
    assert [line for line in stores if not line.startswith("(7b) *(u64 *)")] == []


@pytest.mark.parametrize("hook", [hook for hook in HOOKS if hook.startswith(("connect", "sendmsg"))])
def test_a_call_that_the_filter_stops_runs_into_no_barrier(programs: Path, hook: str) -> None:
    before_the_look_up = "\n".join(instructions(programs / hook)).partition(" call ")[0]
    first = before_the_look_up.index("nospec")
    assert before_the_look_up[:first].count(") if ") == 2  # port and frontend
