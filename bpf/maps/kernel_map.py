"""One pinned map of the kernel, with keys and values as bytes. What the kernel refuses raises OSError."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from ctypes import byref, c_char_p, c_int, c_uint32, c_uint64, c_void_p
from errno import ENOENT, ENOSPC
from pathlib import Path

from bpf.libbpf import check, info, lib, open_pin

BPF_ANY = 0
BPF_NOEXIST = 1
_BATCH = 4096
"""Rows that are read in one system call."""
_PER_CPU_TYPES = (5, 6, 10)
"""BPF_MAP_TYPE_PERCPU_HASH, _PERCPU_ARRAY and _LRU_PERCPU_HASH."""


class _BatchOpts(ctypes.Structure):
    _fields_ = (("sz", ctypes.c_size_t), ("elem_flags", c_uint64), ("flags", c_uint64))


class KernelMap:
    """Opened by the path of its pin. In a per-CPU map, a value is the values of all CPUs, one after the other."""

    def __init__(self, path: Path) -> None:
        self._fd = open_pin(path)
        kind, _, self.key_size, self.row_size, self.max_entries = struct.unpack("=IIIII", info(self._fd, 20))
        self.per_cpu = kind in _PER_CPU_TYPES
        self.cpus = int(lib.libbpf_num_possible_cpus()) if self.per_cpu else 1
        self.value_size = (self.row_size + 7) // 8 * 8 * self.cpus if self.per_cpu else self.row_size
        self.path = path

    def close(self) -> None:
        os.close(self._fd)

    def lookup(self, key: bytes) -> bytes | None:
        """None when there is no such row."""
        value = ctypes.create_string_buffer(self.value_size)
        try:
            check(lib.bpf_map_lookup_elem(self._fd, c_char_p(key), value), f"look up in {self.path.name}")
        except FileNotFoundError:
            return None
        return value.raw

    def update(self, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
        check(
            lib.bpf_map_update_elem(self._fd, c_char_p(key), c_char_p(value), c_uint64(flags)),
            f"update {self.path.name}",
        )

    def take(self, key: bytes) -> bytes | None:
        """Removes a row of a hash map and returns its value; None when there was none. Both happen in one step, so that
        a value which a program writes in between is not lost."""
        value = ctypes.create_string_buffer(self.value_size)
        try:
            check(lib.bpf_map_lookup_and_delete_elem(self._fd, c_char_p(key), value), f"take a row of {self.path.name}")
        except FileNotFoundError:
            return None
        return value.raw

    def add(self, key: bytes, value: bytes) -> None:
        """Writes a row, unless there is one with this key."""
        with contextlib.suppress(FileExistsError):
            self.update(key, value, BPF_NOEXIST)

    def delete(self, key: bytes) -> None:
        """Does nothing when there is no such row."""
        with contextlib.suppress(FileNotFoundError):
            check(lib.bpf_map_delete_elem(self._fd, c_char_p(key)), f"remove a row of {self.path.name}")

    def update_many(self, rows: list[tuple[bytes, bytes]]) -> None:
        """Writes all rows in one system call. After an OSError, some of them may have been written."""
        if not rows:
            return
        opts = _BatchOpts(sz=ctypes.sizeof(_BatchOpts))
        count = c_uint32(len(rows))
        keys = b"".join(key for key, _ in rows)
        values = b"".join(value for _, value in rows)
        check(
            lib.bpf_map_update_batch(self._fd, c_char_p(keys), c_char_p(values), byref(count), byref(opts)),
            f"update {self.path.name}",
        )

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All rows. If the map changes meanwhile, some may be missing, and some may come twice."""
        opts = _BatchOpts(sz=ctypes.sizeof(_BatchOpts))
        size = min(self.max_entries, _BATCH)
        cursor = ctypes.create_string_buffer(max(self.key_size, 8))
        started = False
        while True:
            keys = ctypes.create_string_buffer(self.key_size * size)
            values = ctypes.create_string_buffer(self.value_size * size)
            count = c_uint32(size)
            result = lib.bpf_map_lookup_batch(
                self._fd, cursor if started else None, cursor, keys, values, byref(count), byref(opts)
            )
            if result == -ENOSPC and size < self.max_entries * 2:  # one bucket of the hash has more rows than `size`
                size *= 2
                continue
            if result not in (0, -ENOENT):  # ENOENT: this was the last batch
                check(result, f"read {self.path.name}")
            key_bytes, value_bytes = keys.raw, values.raw
            for i in range(count.value):
                yield (
                    key_bytes[i * self.key_size : (i + 1) * self.key_size],
                    value_bytes[i * self.value_size : (i + 1) * self.value_size],
                )
            if result == -ENOENT:
                return
            started = True


lib.bpf_map_lookup_batch.argtypes = [c_int, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p]
