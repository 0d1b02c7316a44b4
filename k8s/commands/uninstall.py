"""The first step of `helm uninstall` (k8s/chart/templates/uninstall.yaml): every agent gives way to `run.py detach`.

Patches the DaemonSet with k8s/detach.yaml and waits until that has happened on every node that can do it. A node whose
kubelet does not report can't: it is named, and not waited for. Helm prints what is logged here.

    python -m k8s.commands.uninstall NAMESPACE DAEMONSET SECONDS
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import yaml

from k8s.api.client import Api, Raw
from k8s.api.errors import ApiError, Unreachable
from k8s.api.trouble import SourceConfigError

_log = logging.getLogger(__name__)
PATCH = yaml.safe_load((Path(__file__).parents[1] / "detach.yaml").read_text())
LOOK_SECONDS = 10.0
"""Pods and nodes are read only after this time without progress: in a large cluster they are much to read."""
_STRATEGIC = "application/strategic-merge-patch+json"
_NOT_FOUND = 404
_TROUBLE = 429
"""From here on, what is wrong is the server: too many requests, or its own failure."""


class Left(NamedTuple):
    """What is not done: (node, what is seen there) to wait for, and nodes whose kubelet does not report."""

    waiting: tuple[tuple[str, str], ...] = ()
    silent: tuple[str, ...] = ()


def missing(daemon_set: Raw) -> str:
    """How far the patched DaemonSet is, in words; "" when all its Pods are ready."""
    status = daemon_set.get("status", {})
    if status.get("observedGeneration", 0) < daemon_set["metadata"]["generation"]:
        return "the patch has not been seen by the DaemonSet controller"
    wanted = status.get("desiredNumberScheduled", 0)
    # Once every Pod is one of the patched template, ready Pods are such Pods too.
    done = min(status.get("updatedNumberScheduled", 0), status.get("numberReady", 0))
    return "" if done >= wanted else f"{done} of {wanted} nodes are done"


def left(daemon_set: Raw, pods: Sequence[Raw], is_silent: Callable[[str], bool]) -> Left:
    """From the Pods that the DaemonSet selects; `is_silent` is asked only of nodes that are not done."""
    found = {_place(pod): _obstacle(pod) for pod in pods}
    undone = {place: obstacle for place, obstacle in sorted(found.items()) if obstacle}
    silent = tuple(place for place in undone if is_silent(place))
    waiting = [each for each in undone.items() if each[0] not in silent]
    absent = daemon_set.get("status", {}).get("desiredNumberScheduled", 0) - len(found)
    if absent > 0:
        waiting.append((f"({absent} more)", "no Pod yet"))
    return Left(tuple(waiting), silent)


def _place(pod: Raw) -> str:
    return str(pod["spec"].get("nodeName") or "(not scheduled yet)")


def _obstacle(pod: Raw) -> str:
    """Why this Pod's node is not done; "" when it is."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    if "deletionTimestamp" in pod["metadata"]:
        return f"Pod {name} is Terminating"
    (wanted,) = PATCH["spec"]["template"]["spec"]["containers"]
    if all(container.get("command") != wanted["command"] for container in pod["spec"]["containers"]):
        return f"Pod {name} is still an agent"
    if any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", ())):
        return ""
    states = [each.get("state", {}).get("waiting", {}).get("reason") for each in status.get("containerStatuses", ())]
    return f"Pod {name} is not ready: {', '.join(filter(None, states)) or status.get('phase', 'Pending')}"


def is_silent(node: Raw) -> bool:
    """Whether its kubelet does not report. One that reports `Ready: False` still runs Pods with hostNetwork."""
    conditions = node.get("status", {}).get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "Unknown" for each in conditions)


class Uninstall:
    """Of one DaemonSet. Refusals of the API server (no right to, no such DaemonSet) are raised as ApiError."""

    def __init__(self, api: Api, namespace: str, name: str) -> None:
        self._api = api
        self._daemon_set = f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}"
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._patched = False

    def detach(self, seconds: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> Left:
        """What is left, once nothing is to be waited for or the time is over."""
        deadline, told, since = clock() + seconds, "", clock()
        while now := self._progress():
            if now != told:
                _log.info("%s", now)
                told, since = now, clock()
            over = clock() > deadline
            if over or clock() - since > LOOK_SECONDS:
                found = self._look(now)
                if over or not found.waiting:
                    return found
                since = clock()
            sleep(1)
        return Left()

    def _progress(self) -> str:
        """In words; "" when all is done."""
        try:
            if not self._patched:
                self._api.send("PATCH", self._daemon_set, PATCH, _STRATEGIC)
                self._patched = True
            return missing(self._api.get(self._daemon_set, {}))
        except (ApiError, Unreachable) as error:
            return _trouble(error)

    def _look(self, progress: str) -> Left:
        try:
            daemon_set = self._api.get(self._daemon_set, {})
            labels = daemon_set["spec"]["selector"]["matchLabels"]
            selector = ",".join(f"{key}={value}" for key, value in labels.items())
            pods = self._api.get(self._pods, {"labelSelector": selector})["items"]
            return left(daemon_set, pods, self._is_silent)
        except (ApiError, Unreachable) as error:
            return Left(waiting=(("(unknown)", f"{progress}; {_trouble(error)}"),))

    def _is_silent(self, node: str) -> bool:
        try:
            return is_silent(self._api.get(f"/api/v1/nodes/{quote(node, safe='')}", {}))
        except ApiError as error:
            if error.status != _NOT_FOUND:
                raise
            return False


def _trouble(error: ApiError | Unreachable) -> str:
    """Of the server, for a while in all likelihood; what it refuses for good is raised."""
    if isinstance(error, ApiError) and error.status < _TROUBLE:
        raise error
    return str(error)


def main(
    arguments: Sequence[str],
    connect: Callable[[str], Api] = Api,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    namespace, name, seconds = arguments
    try:
        found = Uninstall(connect(""), namespace, name).detach(float(seconds), clock, sleep)
    except ApiError as error:
        if error.status == _NOT_FOUND:
            _log.info("there is no DaemonSet %s/%s", namespace, name)
            return 0
        _log.error("%s", error)
        return 1
    except SourceConfigError as error:
        _log.error("%s", error)
        return 1
    for node in found.silent:
        _log.warning(
            "node %s: its kubelet does not report, so nothing can be detached there. What is in its kernel redirects "
            "nothing once its agent has been gone for datapath.lease_seconds, and goes when the node restarts",
            node,
        )
    for node, obstacle in found.waiting:
        _log.error("node %s: %s", node, obstacle)
    if found.waiting:
        _log.error(
            "nothing is deleted: these nodes did not detach within %s s. Mend them and run `helm uninstall` again; or "
            "go on without them by `helm uninstall --no-hooks`",
            seconds,
        )
        return 1
    _log.info("detached on all %snodes", "other " if found.silent else "")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
