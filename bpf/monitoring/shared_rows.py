"""The maps `watch` and `decisions`, mapped into this process's memory.

Any number of watchers read them, each at its own pace; none takes a decision away from another. All of them write one
word, `until`: the time until which the programs record what they decide. A watcher that ends, in whatever way, leaves
nothing behind: that time passes, and the recording ends.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from bpf.libbpf import opened_pin
from bpf.maps.packing import DECISION_SIZE, unpack_decision
from bpf.maps.rows import Decision

WATCH_NS = 2_000_000_000
"""The programs stop recording this long after a watcher last renewed `until`."""
_WORD = 8
_WATCH_SIZE = 32
MAX_DECISIONS = 1024
"""MAX_DECISIONS of bpf/programs/consts.h."""
_UNTIL, _RECORDED, _DROPPED = 0, 2, 3
"""Indices of the words of `struct watch_row` in bpf/programs/types.h."""


class SharedRows:
    """Reads from the present moment on. Close it when it is no longer needed."""

    def __init__(self, maps: Path) -> None:
        """`maps` is the directory of a build's pinned maps."""
        self._watch_memory = _mapped(maps / "watch", _WATCH_SIZE)
        self._rows_memory = _mapped(maps / "decisions", MAX_DECISIONS * DECISION_SIZE)
        # Read in whole words, since the programs change them meanwhile.
        self._watch = memoryview(self._watch_memory).cast("Q")
        self._numbers = memoryview(self._rows_memory).cast("Q")
        self._read = self._watch[_RECORDED]
        """Number of the last decision that was read."""
        self._dropped = self._watch[_DROPPED]

    def close(self) -> None:
        for view in (self._watch, self._numbers):
            view.release()
        self._watch_memory.close()
        self._rows_memory.close()

    def renew(self, now_ns: int) -> None:
        """Call it at least once in each WATCH_NS. `now_ns` is CLOCK_MONOTONIC."""
        self._watch[_UNTIL] = now_ns + WATCH_NS

    def read(self) -> tuple[list[Decision], int]:
        """What was decided since the last reading, in order; and how many decisions are missing, since there were too
        many in one second, or this reading came too late."""
        last, dropped = self._watch[_RECORDED], self._watch[_DROPPED]
        lost, self._dropped = dropped - self._dropped, dropped
        if last - self._read > MAX_DECISIONS:
            lost += last - self._read - MAX_DECISIONS
            self._read = last - MAX_DECISIONS
        found = []
        while self._read < last:
            number = self._read + 1
            place = number % MAX_DECISIONS * DECISION_SIZE
            before = self._numbers[place // _WORD]
            if before < number:  # a program is still writing it
                break
            raw = self._rows_memory[place : place + DECISION_SIZE]
            if before == number == self._numbers[place // _WORD]:
                found.append(unpack_decision(raw))
            else:  # overwritten meanwhile
                lost += 1
            self._read = number
        return found, lost


def _mapped(path: Path, size: int) -> mmap.mmap:
    pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    with opened_pin(path) as descriptor:
        return mmap.mmap(descriptor, pages, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
