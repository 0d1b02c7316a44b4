"""The first step of `helm uninstall` (k8s/chart/templates/uninstall.yaml): every agent gives way to `run.py detach`.

Patches the DaemonSet with k8s/detach.yaml and waits until that has happened on every node.

    python -m k8s.uninstall NAMESPACE DAEMONSET SECONDS
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from k8s.api import Api, ApiError, Raw, Unreachable
from k8s.source import SourceConfigError

_log = logging.getLogger(__name__)
PATCH = Path(__file__).with_name("detach.yaml")
_STRATEGIC = "application/strategic-merge-patch+json"
_NOT_FOUND = 404
_TROUBLE = 429
"""From here on, what is wrong is the server: too many requests, or its own failure."""


def missing(daemon_set: Raw) -> str:
    """Which Pods of the patched DaemonSet are not ready yet, in words; "" when all are."""
    status = daemon_set.get("status", {})
    if status.get("observedGeneration", 0) < daemon_set["metadata"]["generation"]:
        return "the patch has not been seen by the DaemonSet controller"
    wanted = status.get("desiredNumberScheduled", 0)
    # Once every Pod is one of the patched template, ready Pods are such Pods too.
    done = min(status.get("updatedNumberScheduled", 0), status.get("numberReady", 0))
    return "" if done >= wanted else f"{done} of {wanted} nodes are done"


def detach(api: Api, path: str, seconds: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> bool:
    """Whether it has happened on every node in time. Raises ApiError: no right to, no such DaemonSet."""
    deadline = clock() + seconds
    patched, told = False, "nothing told yet"
    while True:
        try:
            if not patched:
                api.send("PATCH", path, yaml.safe_load(PATCH.read_text()), _STRATEGIC)
                patched = True
            now = missing(api.get(path, {}))
        except (ApiError, Unreachable) as error:
            if isinstance(error, ApiError) and error.status < _TROUBLE:
                raise
            now = str(error)  # for a moment, like as not
        if now != told:
            _log.info("%s", now or "nothing of ours is in any kernel")
        told = now
        if not now:
            return True
        if clock() > deadline:
            return False
        sleep(1)


def main(
    arguments: Sequence[str],
    connect: Callable[[str], Api] = Api,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    namespace, name, seconds = arguments
    path = f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}"
    try:
        if detach(connect(""), path, float(seconds), clock, sleep):
            return 0
        _log.error(
            "not on all nodes within %s s; `kubectl -n %s get pods -o wide` shows where not. On a node that is down "
            "nothing is left to do, its programs go with its kernel: `helm uninstall --no-hooks` goes on without it",
            seconds,
            namespace,
        )
    except ApiError as error:
        if error.status == _NOT_FOUND:
            _log.info("there is no DaemonSet %s/%s", namespace, name)
            return 0
        _log.error("%s", error)
    except SourceConfigError as error:
        _log.error("%s", error)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
