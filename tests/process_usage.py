"""Memory and CPU that a process uses, as /proc shows them (proc(5))."""

from __future__ import annotations

import os
from pathlib import Path


def resident_megabytes(pid: int) -> float:
    """Resident memory, in units of 1024 * 1024 bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def cpu_seconds(pid: int) -> float:
    """Seconds of CPU that all its threads have used since it started, in user and in kernel mode."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")
