"""The loader: a short-lived child process that compiles the programs with BCC, then loads and pins them.

The only module that imports bcc, so that the agent's own process stays small. Nothing is attached here. See
docs/decisions/0001-bcc-in-a-child-process.md.

    python -m bpf.lifecycle.loader DIRECTORY SHARED MAX_FRONTENDS MAX_BACKENDS MAX_AFFINITY

pins every map as DIRECTORY/maps/NAME and every program as DIRECTORY/programs/NAME. The programs use the socket storages
that are pinned as SHARED/NAME; the loader makes those that are missing. DIRECTORY/maps/own_program_HOOK has the program
itself, for a program that starts itself again.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bpf import libbpf
from bpf.build import (
    FIND_REDIRECT,
    HOOKS,
    KERNEL_TREE,
    MAP_NAMES,
    ONE_ROW_MAPS,
    OWN_HOOK,
    OWN_PROGRAM,
    SHARED_MAPS,
    MapSizes,
    compiler_flags,
    program_text,
)
from bpf.maps.kernel_map import KernelMap
from bpf.maps.packing import ONLY_KEY
from bpf.maps.rows import DECIDING_HOOKS


def load(directory: Path, shared: Path, sizes: MapSizes) -> None:
    """`directory` and `shared` must exist on a bpffs. Exits with a message for the operator when something fails."""
    os.environ["BCC_KERNEL_SOURCE"] = str(KERNEL_TREE)
    from bcc import BPF, lib  # noqa: PLC0415  (the only function that needs BCC)

    try:
        programs = BPF(text=program_text(), cflags=compiler_flags(sizes))
    except Exception:  # noqa: BLE001  (BCC raises nothing narrower, and has printed what is wrong)
        sys.exit(
            "BCC could not compile the programs or make their maps; the lines above say why. "
            "If a map is too large for this node, lower datapath.max_frontends, max_backends or max_affinity"
        )
    for kind in ("maps", "programs"):
        (directory / kind).mkdir()
    for name in MAP_NAMES:
        libbpf.pin(programs[name].map_fd, directory / "maps" / name)
    for name, descriptor in ONE_ROW_MAPS.items():
        os.dup2(programs[name].map_fd, descriptor)
    for name, descriptor in SHARED_MAPS.items():
        pin = shared / name
        if not pin.exists():
            # programs[name] fails for this type of map, which BCC has no class for.
            libbpf.pin(lib.bpf_table_fd(programs.module, name.encode()), pin)
        os.dup2(libbpf.open_pin(pin), descriptor)
    for hook in HOOKS:
        if hook in DECIDING_HOOKS:
            _load_deciding(hook, programs.dump_func(b"call4" if hook.endswith("4") else b"call6"), directory)
        else:
            _load_program(hook, programs.dump_func(hook.encode()), directory)
    _load_program(FIND_REDIRECT, programs.dump_func(FIND_REDIRECT.encode()), directory)


def _load_deciding(hook: str, instructions: bytes, directory: Path) -> None:
    """Loads a copy of the program that connect and sendmsg share for each family. Each copy is given the number of its
    hook, and a map of its own by which it can start itself again: recent kernels let a program start only one of its
    own attach type."""
    own = directory / "maps" / f"own_program_{hook}"
    array = libbpf.program_array()
    libbpf.pin(array, own)
    os.dup2(array, OWN_PROGRAM)
    placeholder, number = OWN_HOOK.to_bytes(4, sys.byteorder), DECIDING_HOOKS.index(hook).to_bytes(4, sys.byteorder)
    assert instructions.count(placeholder) == 1
    program = _load_program(hook, instructions.replace(placeholder, number), directory)
    KernelMap(own).update(ONLY_KEY, program.to_bytes(4, sys.byteorder))


def _load_program(name: str, instructions: bytes, directory: Path) -> int:
    """Loads and pins a program. Returns its descriptor."""
    program_type = libbpf.PROG_TYPE_SOCK_ADDR if name in HOOKS else libbpf.PROG_TYPE_SCHED_CLS
    try:
        program = libbpf.load_program(name, instructions, program_type, HOOKS.get(name, 0))
    except libbpf.ProgramRefused as reason:
        sys.exit(
            f"kernel {os.uname().release} refuses the program {name}: {reason}. Use a kernel that "
            "docs/compatibility.md names, and please report this line with the version of the agent"
        )
    libbpf.pin(program, directory / "programs" / name)
    return program


if __name__ == "__main__":
    load(Path(sys.argv[1]), Path(sys.argv[2]), MapSizes(*map(int, sys.argv[3:6])))
