"""Runs commands in a VM for the host. It reads orders as JSON lines from standard input, and writes what happens as
JSON lines to standard output.

    {"command": ["make", "unit"], "environment": {}}   ->   {"stdout": "..."} and {"stderr": "..."} for each line,
                                                            {"status": 0} at the end
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import IO


def main() -> None:
    report(kernel=os.uname().release)
    for line in sys.stdin:
        order = json.loads(line)
        report(status=run(order["command"], order["environment"]))


def run(command: list[str], environment: dict[str, str]) -> int:
    try:
        process = subprocess.Popen(
            command,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
    except OSError as error:
        report(stderr=f"{error}\n")
        return 127
    streams = {"stdout": process.stdout, "stderr": process.stderr}
    threads = [threading.Thread(target=pass_on, args=each) for each in streams.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return process.wait()


def pass_on(name: str, stream: IO[str]) -> None:
    for line in stream:
        report(**{name: line})


_lock = threading.Lock()


def report(**what: object) -> None:
    with _lock:
        print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
