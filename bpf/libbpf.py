"""The few calls of libbpf that the agent needs, by ctypes.

libbpf 1.x returns -errno from its low-level calls; here that is an OSError. Descriptors are close-on-exec.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from ctypes import byref, c_char_p, c_int, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import NamedTuple

BPF_ANY = 0
BPF_NOEXIST = 1
BPF_F_BEFORE = 1 << 3
"""Attach before the programs that are on the cgroup already: kernel 6.17, and older ones that have taken it over."""
BPF_F_QUERY_EFFECTIVE = 1
PROG_TYPE_SOCK_ADDR = 18
_BATCH = 4096
_LOG_STATS = 4
"""Level of the verifier's log that has its reasons and sums, and not every instruction that it follows."""
_LOG_SIZE = 1 << 20
_NO_REASON = ("verification time ", "stack depth ", "processed ", "cur state: ", "old state: ")
"""How lines of the verifier's log begin that come after its reason: sums, and registers."""
_MOST_PROGRAMS = 64 * 16
"""The kernel takes 64 of one kind a cgroup; those of the cgroups above run too."""

_lib = ctypes.CDLL("libbpf.so.1", use_errno=True)


class _Opts(ctypes.Structure):
    _fields_ = (("sz", ctypes.c_size_t), ("flags", c_uint32), ("pad", ctypes.c_uint8 * 44))


class _BatchOpts(ctypes.Structure):
    _fields_ = (("sz", ctypes.c_size_t), ("elem_flags", c_uint64), ("flags", c_uint64))


class _LoadOpts(ctypes.Structure):
    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("attempts", c_int),
        ("expected_attach_type", c_int),
        ("unused", c_uint32 * 7),  # prog_btf_fd ... attach_btf_obj_fd
        ("fd_array", c_void_p),
        ("func_info", c_void_p),
        ("func_info_sizes", c_uint32 * 2),
        ("line_info", c_void_p),
        ("line_info_sizes", c_uint32 * 2),
        ("log_level", c_uint32),
        ("log_size", c_uint32),
        ("log_buf", c_char_p),
    )


class ProgramRefused(Exception):
    """The kernel does not load a program; the text is its reason, in one line."""


def _check(result: int, what: str) -> int:
    if result < 0:
        number = -result if result != -1 else ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def load_program(name: str, instructions: bytes, attach_type: int) -> int:
    """Descriptor of a new program of PROG_TYPE_SOCK_ADDR. Raises ProgramRefused.

    BCC's own way to load prints a dump of every register, or takes a limit of the verifier for the program's size.
    """
    opts = _LoadOpts(sz=ctypes.sizeof(_LoadOpts), expected_attach_type=attach_type)
    count = ctypes.c_size_t(len(instructions) // 8)
    arguments = (PROG_TYPE_SOCK_ADDR, name.encode(), b"GPL", c_char_p(instructions), count, byref(opts))
    result = _lib.bpf_prog_load(*arguments)
    if result >= 0:
        return int(result)
    # Once more, for the reason: a log that did not fit would be an error by itself.
    log = ctypes.create_string_buffer(_LOG_SIZE)
    opts.log_level, opts.log_size, opts.log_buf = _LOG_STATS, _LOG_SIZE, ctypes.cast(log, c_char_p)
    _lib.bpf_prog_load(*arguments)
    raise ProgramRefused(verifier_reason(log.value.decode(errors="replace"), -result))


def verifier_reason(log: str, error_number: int) -> str:
    """The last reason in a verifier's log, and the error that came with it."""
    lines = [line.strip() for line in log.splitlines()]
    reasons = [line.rstrip(".") for line in lines if line and not line.startswith(_NO_REASON)]
    error = os.strerror(error_number)
    return f"{reasons[-1]} ({error})" if reasons else error


def open_pin(path: Path) -> int:
    """Descriptor of the pinned map, program or link."""
    return _check(_lib.bpf_obj_get(os.fsencode(path)), f"open {path}")


@contextlib.contextmanager
def opened_pin(path: Path) -> Iterator[int]:
    descriptor = open_pin(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def pin(descriptor: int, path: Path) -> None:
    _check(_lib.bpf_obj_pin(descriptor, os.fsencode(path)), f"pin {path}")


def info(descriptor: int, size: int) -> bytes:
    """The first `size` bytes of the object's info (struct bpf_map_info, bpf_prog_info or bpf_link_info)."""
    buffer = ctypes.create_string_buffer(size)
    length = c_uint32(size)
    _check(_lib.bpf_obj_get_info_by_fd(descriptor, buffer, byref(length)), "object info")
    return buffer.raw


def program_id(program: int) -> int:
    return int(struct.unpack_from("=I", info(program, 8), 4)[0])


class LinkInfo(NamedTuple):
    link_id: int
    program_id: int
    cgroup_id: int
    """0 when the cgroup is gone, or somebody detached the link."""
    attach_type: int


def link_info(link: int) -> LinkInfo:
    """Of a cgroup link."""
    return LinkInfo(*struct.unpack("=4xIIxxxxQI", info(link, 28)))


def link_create(program: int, cgroup: int, attach_type: int, flags: int) -> int:
    opts = _Opts(sz=ctypes.sizeof(_Opts), flags=flags)
    return _check(_lib.bpf_link_create(program, cgroup, attach_type, byref(opts)), "create link")


def link_update(link: int, program: int) -> None:
    """Swaps the link's program for another, at its place, without a gap."""
    _check(_lib.bpf_link_update(link, program, None), "update link")


def link_detach(link: int) -> None:
    _check(_lib.bpf_link_detach(link), "detach link")


def effective_programs(cgroup: int, attach_type: int) -> list[int]:
    """Ids of the programs that run for a process in the cgroup, in the order in which they run."""
    ids = (c_uint32 * _MOST_PROGRAMS)()
    count = c_uint32(len(ids))
    flags = c_uint32()
    _check(
        _lib.bpf_prog_query(cgroup, attach_type, BPF_F_QUERY_EFFECTIVE, byref(flags), ids, byref(count)),
        "query programs",
    )
    return list(ids[: count.value])


def probe_map_type(map_type: int) -> bool:
    return int(_lib.libbpf_probe_bpf_map_type(map_type, None)) == 1


def probe_program_type(program_type: int) -> bool:
    return int(_lib.libbpf_probe_bpf_prog_type(program_type, None)) == 1


def probe_helper(program_type: int, helper: int) -> bool:
    return int(_lib.libbpf_probe_bpf_helper(program_type, helper, None)) == 1


class Map:
    """A pinned map of fixed key and value size, opened by path. Values of per-CPU maps are all CPUs' in a row."""

    def __init__(self, path: Path) -> None:
        self._fd = open_pin(path)
        kind, _, self.key_size, self.row_size, self.max_entries = struct.unpack("=IIIII", info(self._fd, 20))
        self.per_cpu = kind in (5, 6, 10)  # BPF_MAP_TYPE_PERCPU_HASH, _PERCPU_ARRAY, _LRU_PERCPU_HASH
        self.cpus = int(_lib.libbpf_num_possible_cpus()) if self.per_cpu else 1
        self.value_size = (self.row_size + 7) // 8 * 8 * self.cpus if self.per_cpu else self.row_size
        self.path = path

    def close(self) -> None:
        os.close(self._fd)

    def lookup(self, key: bytes) -> bytes | None:
        value = ctypes.create_string_buffer(self.value_size)
        try:
            _check(_lib.bpf_map_lookup_elem(self._fd, c_char_p(key), value), f"look up in {self.path.name}")
        except FileNotFoundError:
            return None
        return value.raw

    def update(self, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
        _check(
            _lib.bpf_map_update_elem(self._fd, c_char_p(key), c_char_p(value), c_uint64(flags)),
            f"update {self.path.name}",
        )

    def take(self, key: bytes) -> bytes | None:
        """Removes a row of a hash map; its value, or None when there was none. At once, so that no value is lost."""
        value = ctypes.create_string_buffer(self.value_size)
        try:
            _check(
                _lib.bpf_map_lookup_and_delete_elem(self._fd, c_char_p(key), value), f"take a row of {self.path.name}"
            )
        except FileNotFoundError:
            return None
        return value.raw

    def add(self, key: bytes, value: bytes) -> None:
        """Writes a row where there is none; one that is there stays."""
        with contextlib.suppress(FileExistsError):
            self.update(key, value, BPF_NOEXIST)

    def delete(self, key: bytes) -> bool:
        """False when there was no such row."""
        try:
            _check(_lib.bpf_map_delete_elem(self._fd, c_char_p(key)), f"remove a row of {self.path.name}")
        except FileNotFoundError:
            return False
        return True

    def update_many(self, rows: list[tuple[bytes, bytes]]) -> None:
        """In one call. After an OSError some of the rows may be written."""
        if not rows:
            return
        opts = _BatchOpts(sz=ctypes.sizeof(_BatchOpts))
        count = c_uint32(len(rows))
        keys = b"".join(key for key, _ in rows)
        values = b"".join(value for _, value in rows)
        _check(
            _lib.bpf_map_update_batch(self._fd, c_char_p(keys), c_char_p(values), byref(count), byref(opts)),
            f"update {self.path.name}",
        )

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every row, read in batches; of a map that changes meanwhile, rows may be missing or come twice."""
        opts = _BatchOpts(sz=ctypes.sizeof(_BatchOpts))
        size = min(self.max_entries, _BATCH)
        cursor = ctypes.create_string_buffer(max(self.key_size, 8))
        started = False
        while True:
            keys = ctypes.create_string_buffer(self.key_size * size)
            values = ctypes.create_string_buffer(self.value_size * size)
            count = c_uint32(size)
            result = _lib.bpf_map_lookup_batch(
                self._fd, cursor if started else None, cursor, keys, values, byref(count), byref(opts)
            )
            if result == -28 and size < self.max_entries * 2:  # ENOSPC: a hash bucket holds more rows than we asked for
                size *= 2
                continue
            if result not in (0, -2):  # ENOENT: this was the last batch
                _check(result, f"read {self.path.name}")
            key_bytes, value_bytes = keys.raw, values.raw
            for i in range(count.value):
                yield (
                    key_bytes[i * self.key_size : (i + 1) * self.key_size],
                    value_bytes[i * self.value_size : (i + 1) * self.value_size],
                )
            if result == -2:
                return
            started = True


_lib.bpf_map_lookup_batch.argtypes = [c_int, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p]
