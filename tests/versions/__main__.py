"""`make versions [KUBERNETES=1.31]`: runs the tests that need no node on the API servers of other versions.

    python -m tests.versions             on all of them, one after the other
    python -m tests.versions 1.31 1.33   on these

The first run of a version builds its API server and kubectl, which takes some ten minutes. Exits with 1 when a test
of any version failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from tests.cluster import binaries
from tests.cluster.ready import obstacles

BELOW_THE_FLOOR = "1.30"
"""Not supported, since it refuses the CRD."""
_NODELESS = ("test_apply", "test_convert", "test_crd", "test_pod_security", "test_source", "test_controller")
TESTS = ("tests/versions/test_asked_version.py", *(f"tests/cluster/{name}.py" for name in _NODELESS))
NEWEST = ".".join(binaries.KUBERNETES.removeprefix("v").split(".")[:2])
VERSIONS = (*binaries.OLDER, NEWEST)


def main(arguments: list[str]) -> int:
    versions = arguments or VERSIONS
    faults = obstacles() + [f"{each} is not among {', '.join(VERSIONS)}" for each in versions if each not in VERSIONS]
    for fault in faults:
        print(f"tests on other versions of Kubernetes cannot run: {fault}", file=sys.stderr)
    if faults:
        return 1
    failed = [each for each in versions if not _passes(each)]
    if failed:
        print(f"failed on Kubernetes {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _passes(version: str) -> bool:
    # Without KUBERNETES, tests.cluster uses the newest version, which the nodes have, too.
    environment = {**os.environ, "KUBERNETES": "" if version == NEWEST else version}
    tests = ("tests/versions/test_floor.py",) if version == BELOW_THE_FLOOR else TESTS
    build = [sys.executable, "-c", "from tests.cluster.binaries import *; kubernetes('kubectl'); helm()"]
    subprocess.run(build, check=True, env=environment)
    began = time.monotonic()
    print(f"Kubernetes {version}:", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.no_skips", *tests], check=False, env=environment
    )
    print(f"Kubernetes {version}: exit code {done.returncode} after {time.monotonic() - began:.0f} s", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
