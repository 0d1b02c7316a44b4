"""Measures faults and prints the tables."""

from __future__ import annotations

import argparse
import sys

from tests.bench.losses.faults import FAULTS
from tests.bench.losses.measuring import measure
from tests.bench.losses.ways import WAYS
from tests.cluster import ready


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.losses", description=__doc__)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=", ".join(fault.name for fault in FAULTS))
    parser.add_argument("--way", action="append", choices=[way.name for way in WAYS], dest="ways")
    arguments = parser.parse_args()
    unknown = set(arguments.faults) - {fault.name for fault in FAULTS}
    if unknown:
        parser.error(f"there is no fault {', '.join(sorted(unknown))}")
    reasons = ready.obstacles()
    if reasons:
        print("the losses can't be measured: " + "; ".join(reasons), file=sys.stderr)
        return 1
    ready.build_all()
    faults = [fault for fault in FAULTS if not arguments.faults or fault.name in arguments.faults]
    ways = [way for way in WAYS if not arguments.ways or way.name in arguments.ways]
    print(measure(faults, ways))
    return 0


if __name__ == "__main__":
    sys.exit(main())
