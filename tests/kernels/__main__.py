"""`make kernels KERNEL=6.1 COMMAND="..."`: runs a command of this checkout on another kernel.

    python -m tests.kernels            lists the available kernels
    python -m tests.kernels 6.1 COMMAND [ARGUMENT...]

Exits with the command's exit code, or with 125 when the kernel cannot be fetched or does not start.
"""

from __future__ import annotations

import sys
import time

from tests.kernels import debian
from tests.kernels.vm import VirtualMachine, VirtualMachineError

_LIMIT_SECONDS = 2 * 3600
_FAILURE = 125


def main(arguments: list[str]) -> int:
    try:
        if not arguments:
            print("\n".join(debian.served()))
            return 0
        kernel, *command = arguments
        directory = debian.fetch(kernel)
        began = time.monotonic()
        with VirtualMachine(directory) as vm:
            print(f"{directory.name}, up in {time.monotonic() - began:.0f} s", file=sys.stderr)
            status = vm.run(command, seconds=_LIMIT_SECONDS, show=True).status
        print(f"{directory.name}: exit code {status} after {time.monotonic() - began:.0f} s", file=sys.stderr)
    except (debian.NoSuchKernel, VirtualMachineError) as error:
        print(error, file=sys.stderr)
        return _FAILURE
    except KeyboardInterrupt:
        return _FAILURE
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
