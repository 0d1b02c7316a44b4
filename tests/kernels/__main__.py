"""`make kernels KERNEL=6.1 COMMAND="..."`: runs a command of this checkout on another kernel.

    python -m tests.kernels ARCHITECTURE            lists the available kernels
    python -m tests.kernels ARCHITECTURE 6.1 COMMAND [ARGUMENT...]

ARCHITECTURE is one of debian.ARCHITECTURES.

Exits with the command's exit code, or with 125 when the kernel cannot be fetched or does not start.
"""

from __future__ import annotations

import sys
import time

from tests.kernels import debian, root
from tests.kernels.vm import VirtualMachine, VirtualMachineError

_LIMIT_SECONDS = 2 * 3600
_FAILURE = 125


def main(arguments: list[str]) -> int:
    try:
        architecture, *rest = arguments
        if architecture not in debian.ARCHITECTURES:
            print(f"ARCH is {architecture}; it must be one of {', '.join(debian.ARCHITECTURES)}", file=sys.stderr)
            return _FAILURE
        if not rest:
            print("\n".join(debian.served(architecture)))
            return 0
        kernel, *command = rest
        directory = debian.fetch(kernel, architecture)
        foreign = None if architecture == debian.ARCHITECTURES[0] else root.build(architecture)
        began = time.monotonic()
        with VirtualMachine(directory, foreign=foreign) as vm:
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
