"""Other software of a node, beside ours: programs on the same cgroup, and a DNS server in a Pod."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.lab import PodProcess
from tests.lab.processes import ROOT


@contextmanager
def foreign_programs(cgroup: Path, address: str, translated: str, flags: int = 0) -> Iterator[dict[str, list[str]]]:
    """Attaches the programs of `tests.lab.foreign` to the cgroup, with these flags. Yields hook -> how the agent names
    its programs."""
    command = [sys.executable, "-m", "tests.lab.foreign", str(cgroup), address, translated, str(flags)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        connect4, sendmsg4 = process.stdout.readline().split()
        yield {"connect4": [f"program {connect4}"], "sendmsg4": [f"program {sendmsg4}"]}
    # Popen's exit closes the process' standard input, and awaits its end.


@contextmanager
def dnsmasq(pod: PodProcess, *, port: int, name: str, address: str) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a real DNS server in a Pod's namespace, and yields once it serves. It answers queries for the name with the
    address; `#` stands for every name."""
    enter = ("nsenter", f"--net=/run/netns/{pod.netns}")
    options = ("--keep-in-foreground", f"--port={port}", f"--address=/{name}/{address}", "--no-resolv", "--no-hosts")
    files = ("--conf-file=/dev/null", "--pid-file=", "--user=root", "--log-facility=-")
    process = subprocess.Popen([*enter, "dnsmasq", *options, *files], stderr=subprocess.PIPE)
    assert process.stderr
    try:
        assert any(b"started" in line for line in process.stderr)
        yield process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
